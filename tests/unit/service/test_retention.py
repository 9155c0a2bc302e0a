"""What is pruned from the task store, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services import result
from tests.unit.service.test_projection import TOPICS, invoked, record, returned, write
from upon.config import Settings
from upon.messages import DeadLetter
from upon.service import retention
from upon.service.retention import prune_some
from upon.service.store.queries import LetterFilter, TaskFilter, list_deadletters, list_tasks
from upon.service.store.store import Store
from upon.service.store.tables import deadletters, tasks
from upon.topics import Topics, kept


@pytest.fixture
def store(tmp_path: Path) -> Store:
    one = Store(f"sqlite:///{tmp_path / 'tasks.db'}")
    one.open()
    return one


def ids(store: Store) -> list[str]:
    with store._engine.connect() as connection:
        return [row.id for row in list_tasks(connection, TaskFilter(), 100)]


async def test_ended_tasks_go_by_age_and_what_is_open_stays(store: Store) -> None:
    write(store, *(invoked(f"t{n}") for n in range(4)), *(returned(result(f"t{n}")) for n in (0, 1)))
    assert await store.change(lambda c: prune_some(c, tasks, tasks.c.submitted, 10, 0)) == 0
    assert await store.change(lambda c: prune_some(c, tasks, tasks.c.submitted, 11, 0)) == 2
    assert ids(store) == ["t3", "t2"]


async def test_the_newest_stay_by_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 3)
    write(store, *(invoked(f"t{n}") for n in range(8)), *(returned(result(f"t{n}")) for n in range(8)))
    gone: list[int] = []
    while len(gone) < 2 or gone[-1] == 3:
        gone.append(await store.change(lambda c: prune_some(c, tasks, tasks.c.submitted, 0, 3)))
    assert gone == [3, 2]
    assert ids(store) == ["t7", "t6", "t5"]


async def test_dead_letters_go_as_well(store: Store) -> None:
    letters = [DeadLetter(id=f"d{n}", origin="o", part="p", reason="r", at=n + 1) for n in range(5)]
    write(store, *(record(TOPICS.deadletter, one) for one in letters))
    assert await store.change(lambda c: prune_some(c, deadletters, deadletters.c.at, 2, 3)) == 2
    with store._engine.connect() as connection:
        assert [row.id for row in list_deadletters(connection, LetterFilter(), 9)] == ["d4", "d3", "d2"]


def test_what_is_kept_is_said(tmp_path: Path) -> None:
    assert retention.in_words(Settings.load(tmp_path, keep_tasks="2d", keep_sites=0)) == {
        "tasks": "2 d, the newest 1,000,000",
        "dead letters": "90 d, the newest 100,000",
        "large payloads": "7 d, the newest 68,719,476,736 bytes",
        "sites": "for ever",
        "unused code": "14 d",
        "Kafka": "7 d, the newest 8,589,934,592 bytes of each partition",
    }


def test_compacted_topics_are_not_limited() -> None:
    limits = kept([*Topics("t").shared(), *Topics("t").of_site("local")], 2.0, 0)
    assert sorted(limits) == [
        "t.control.local",
        "t.deadletter",
        "t.events",
        "t.invocations.local",
        "t.results",
    ]
    assert limits["t.events"] == {"retention.ms": "2000", "retention.bytes": "-1"}
