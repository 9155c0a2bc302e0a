"""The projection and the SQL under it: the rows end the same in whatever order, and however often, records come."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.services import invocation, result
from upon.errors import ConfigError
from upon.messages import Cause, DeadLetter, InvocationBatch, Message, Resolved, ResultBatch, Started, encode
from upon.service.store.projection import project
from upon.service.store.queries import TaskFilter, get_deadletter, get_generations, get_task, list_tasks
from upon.service.store.store import Store
from upon.service.store.tables import metadata
from upon.topics import Topics

TOPICS = Topics("t")
CAUSE = Cause(rule="r", rule_revision=2, event_id="e", event_type="a", event_source="/x")
offsets = itertools.count()


def record(topic: str, value: Message | bytes) -> ConsumerRecord[Any, Any]:
    data = value if isinstance(value, bytes) else encode(value)
    return ConsumerRecord(topic, 0, next(offsets), 1_000, 0, None, data, 0, None, len(data), ())


def invoked(id: str, **fields: Any) -> ConsumerRecord[Any, Any]:
    batch = InvocationBatch(site="local", principal="p", submitted=10, invocations=(invocation(id, **fields),))
    return record(TOPICS.invocations("local"), batch)


def returned(*results: Any, started: Sequence[Started] = ()) -> ConsumerRecord[Any, Any]:
    return record(TOPICS.results, ResultBatch(site="local", results=results, started=tuple(started)))


def write(store: Store, *records: ConsumerRecord[Any, Any], now: int = 1) -> None:
    store.write(lambda _taken: project(records, TOPICS, now))


def row(store: Store, id: str) -> dict[str, Any]:
    with store._engine.connect() as connection:
        found = get_task(connection, id)
    assert found is not None
    return {name: value for name, value in found._mapping.items() if name != "stored"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    one = Store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'tasks.db'}")
    one.open()
    return one


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_order_and_repetition_do_not_matter(store: Store, data: st.DataObject) -> None:
    records = [
        invoked("x", cause=CAUSE, version=3),
        returned(started=[Started(id="x", started=20, attempt=1)]),
        returned(started=[Started(id="x", started=30, attempt=2)]),
        returned(result("x", {"a": 1}, cause=CAUSE, version=3, attempts=2)),
        invoked("x#1", cause=CAUSE, version=3),
        returned(started=[Started(id="x#1", started=40, attempt=1)]),
        returned(result("x#1", {"a": 2}, cause=CAUSE, version=3)),
    ]
    wanted = records[: data.draw(st.integers(1, 7), label="how much of its way it went")]
    repeated = data.draw(st.lists(st.sampled_from(wanted), max_size=3), label="redelivered")
    mixed = data.draw(st.permutations([*wanted, *repeated]), label="order")
    cuts = data.draw(st.sets(st.integers(1, len(mixed))), label="transactions")

    def end_state(order: Sequence[ConsumerRecord[Any, Any]], ends: set[int]) -> tuple[dict[str, Any], list[Any]]:
        with store._engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(table.delete())
        start = 0
        for end in sorted({*ends, len(order)}):
            write(store, *order[start:end], now=99)
            start = end
        with store._engine.connect() as connection:
            history = [(one.generation, one.status, one.started) for one in get_generations(connection, "x")]
        return row(store, "x"), history

    assert end_state(mixed, cuts) == end_state(wanted, set())


def test_the_first_result_wins(store: Store) -> None:
    write(store, invoked("first"), returned(result("first", 1)), returned(result("first", 2)))
    write(store, returned(result("first", 3, status="failed")))
    assert row(store, "first")["status"] == "succeeded"
    assert row(store, "first")["result"] == encode(result("first", 1))


def test_results_of_accepted_tasks_and_of_others_share_a_transaction(store: Store) -> None:
    write(store, invoked("told", version=3))
    write(
        store, returned(result("told", 1), result("untold", 2, function="of the result", version=4), result("told", 3))
    )
    assert row(store, "told")["result"] == encode(result("told", 1))
    assert (row(store, "told")["status"], row(store, "told")["version"]) == ("succeeded", 3)
    untold = row(store, "untold")
    assert (untold["function"], untold["version"], untold["accepted"]) == ("of the result", 4, False)


def test_what_a_task_was_before_it_was_tried_again_is_kept(store: Store) -> None:
    write(store, invoked("again"), returned(result("again", status="failed", attempts=3)), invoked("other"))
    write(store, invoked("again#1"))
    assert (row(store, "again")["status"], row(store, "again")["generation"]) == ("pending", 1)
    write(store, returned(result("again", 7)), returned(result("again#1", status="failed")), returned(result("other")))
    write(store, invoked("again#2"), returned(result("again#2", 8)))
    assert (row(store, "again")["status"], row(store, "again")["generation"]) == ("succeeded", 2)
    assert (row(store, "other")["status"], row(store, "other")["generation"]) == ("succeeded", 0)
    with store._engine.connect() as connection:
        found = [(one.generation, one.status, one.attempts) for one in get_generations(connection, "again")]
    assert found == [(0, "failed", 3), (1, "failed", 1)]


def test_a_letter_that_was_dealt_with_stays_so(store: Store) -> None:
    letter = record(TOPICS.deadletter, DeadLetter(id="dealt", origin="o", part="p", reason="r", rule="a"))
    write(store, letter, record(TOPICS.deadletter, Resolved(ids=("dealt", "?"), how="dropped", principal="me", at=5)))
    write(store, letter, record(TOPICS.deadletter, Resolved(ids=("dealt",), how="retried", principal="you", at=6)))
    with store._engine.connect() as connection:
        found = get_deadletter(connection, "dealt")
    assert found is not None
    assert (found.status, found.resolved, found.resolved_by, found.rule) == ("dropped", 5, "me", "a")


def test_a_row_that_cannot_be_stored_spoils_no_other(store: Store) -> None:
    bad = returned(result("x" * 12_000), result("beside"), result(""))
    changes = project([bad], TOPICS, 1)
    assert [one.record for one in changes.bad] == [bad]
    assert "an id has 1 to 200 characters, not 12,000" in changes.bad[0].reason
    assert [one["id"] for one in changes.ended] == ["beside"]


def test_positions_are_those_of_the_rows(store: Store) -> None:
    records = [returned(result("p1")), record(TOPICS.deadletter, DeadLetter(id="d", origin="o", part="p", reason="r"))]
    write(store, *records)
    written = store.positions()
    assert written[TOPICS.results, 0] == records[0].offset + 1
    assert written[TOPICS.deadletter, 0] == records[1].offset + 1
    broken = project([invoked("p3"), returned(result("p2"))], TOPICS, 1)
    broken.accepted[0]["status"] = None
    with pytest.raises(Exception, match="NOT NULL"):
        store.write(lambda _: broken)
    assert store.positions() == written, "rows and positions, or neither"


@pytest.mark.parametrize(
    "value",
    [b"", b"\xc1", b"\x93\x01\x02\x03", encode(ResultBatch(site="s", results=(result("x", status="running"),)))],
)
def test_what_cannot_be_read_is_passed_over(value: bytes) -> None:
    bad = record(TOPICS.results, value)
    changes = project([bad, returned(result("good"))], TOPICS, 1)
    assert [one.record for one in changes.bad] == [bad]
    assert [one["id"] for one in changes.ended] == ["good"]
    assert changes.positions[TOPICS.results, 0] == bad.offset + 2


@given(st.binary(max_size=60))
def test_no_bytes_stop_it(data: bytes) -> None:
    for topic in (TOPICS.results, TOPICS.deadletter, TOPICS.invocations("local")):
        changes = project([record(topic, data)], TOPICS, 1)
        assert len(changes.bad) + len(changes.ids()) <= 1 or not changes.bad


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite:////no/such/folder/tasks.db"])
def test_a_wrong_database_says_so(url: str) -> None:
    with pytest.raises(ConfigError, match=r"database|task store"):
        Store(url).open()


def test_the_listing_uses_its_indexes(store: Store) -> None:
    """A listing must not read the whole table: the planner's choice is looked up for each of the usual questions."""
    with store._engine.connect() as connection:
        seen: list[str] = []
        for wanted in (
            TaskFilter(),
            TaskFilter(statuses=("failed",)),
            TaskFilter(statuses=("pending",)),
            TaskFilter(rule="r"),
        ):
            explained = _explain(connection, wanted)
            assert "SCAN tasks USING INDEX" in explained or "SEARCH tasks USING INDEX" in explained, explained
            assert "TEMP B-TREE" not in explained, explained
            seen.append(explained)
    assert "tasks_unusual" in seen[1]
    assert "tasks_of_rule" in seen[3]


def _explain(connection: Any, wanted: TaskFilter) -> str:
    from sqlalchemy import event

    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    list_tasks(connection, wanted, 50)
    event.remove(connection, "before_cursor_execute", note)
    statement, parameters = statements[-1]
    return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all())
