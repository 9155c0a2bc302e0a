"""The task store's form changes; what is in it stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from upon.errors import ConfigError
from upon.messages import Cause, DeadLetter, Result, decode
from upon.service.store import schema
from upon.service.store.queries import LetterFilter, TaskFilter, get_deadletter, get_task, list_deadletters, list_tasks
from upon.service.store.store import Store
from upon.service.store.tables import metadata

FIRST_LETTER = {"id": "d", "origin": "t/0/1", "part": "streams", "reason": "EventError: \x00", "value": b"abc"}


def made_by_the_first_revision(engine: Engine, *, stamped: bool = True) -> None:
    """Make a store of the first form with rows in it, as it stood before revisions were written down."""
    fired = {"rule": "r", "rule_version": 3, "event_id": "e", "event_type": "t", "event_source": "/s"}
    cause, done = map(msgspec.msgpack.encode, (fired, {"id": "t", "status": "failed", "cause": fired}))
    with engine.begin() as connection:
        schema.bring_up_to_date(connection, to=schema.FIRST)
        connection.execute(text("INSERT INTO projection VALUES (1)"))
        connection.execute(
            text(
                "INSERT INTO tasks (id, status, accepted, rule, rule_version, submitted, cause, result) "
                "VALUES (:id, :s, :a, 'r', 3, 5, :c, :b)"
            ),
            [{"id": f"t{n}", "s": "failed", "a": True, "c": cause, "b": done} for n in range(3)],
        )
        connection.execute(
            text("INSERT INTO deadletters VALUES ('d', 7, :record)"), {"record": msgspec.msgpack.encode(FIRST_LETTER)}
        )
        connection.execute(text("INSERT INTO positions VALUES ('t.results', 0, 42)"))
        if not stamped:
            connection.execute(text("DROP TABLE alembic_version"))


def holds_what_it_held(store: Store) -> None:
    assert store.positions() == {("t.results", 0): 42}
    with store._engine.connect() as connection:
        listed = list_tasks(connection, TaskFilter(statuses=("failed",), rule="r"), 10)
        assert [(row.id, row.generation, row.submitted) for row in listed] == [("t2", 0, 5), ("t1", 0, 5), ("t0", 0, 5)]
        whole = get_task(connection, "t0")
        assert whole is not None
        assert (whole.rule_revision, decode(whole.cause, Cause).rule_revision) == (3, 3)
        assert decode(whole.result, Result).cause == decode(whole.cause, Cause)
        (about,) = list_deadletters(connection, LetterFilter(), 10)
        assert (about.id, about.part, about.reason, about.status, about.size) == (
            "d",
            "streams",
            "EventError: \\x00",
            "open",
            3,
        )
        letter = get_deadletter(connection, "d")
        assert letter is not None
        assert decode(letter.record, DeadLetter).value == b"abc"


@pytest.mark.parametrize("stamped", [True, False])
def test_a_store_of_the_first_form_keeps_its_rows(tmp_path: Path, stamped: bool) -> None:
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    engine = create_engine(url)
    made_by_the_first_revision(engine, stamped=stamped)
    engine.dispose()
    for _ in range(2):
        store = Store(url)
        store.open()
        holds_what_it_held(store)
        store.close()


def test_the_revisions_make_what_the_tables_say(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'tasks.db'}")
    with engine.begin() as connection:
        schema.bring_up_to_date(connection, to=schema.FIRST)
        assert not schema.is_current(connection)
        schema.bring_up_to_date(connection)
        assert schema.is_current(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert ScriptDirectory.from_config(schema._config()).get_current_head() == schema.NEWEST


def test_a_new_store_has_the_newest_form_and_needs_no_alembic(tmp_path: Path) -> None:
    """Which takes a quarter of a second to import, at each start."""
    script = (
        "import sys; from upon.service.store.store import Store; store = Store(sys.argv[1]); store.open(); "
        "store.close(); store.open(); assert 'alembic' not in sys.modules"
    )
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    subprocess.run([sys.executable, "-c", script, url], check=True)
    with create_engine(url).connect() as connection:
        assert schema.is_current(connection)
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []


def test_a_store_of_a_newer_upon_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    store = Store(url)
    store.open()
    with store._writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(ConfigError, match="form 9999, which a newer Upon made"):
        Store(url).open()
