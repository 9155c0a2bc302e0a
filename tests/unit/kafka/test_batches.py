"""How entries wait for Kafka: at once when idle, gathered under load, in order, split when refused, of true size."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.errors import PayloadTooLarge
from upon.events import BATCH, STRUCTURED, Event, read_record, write_record
from upon.kafka.batches import ROOM, Entry, Lane, Lanes, Record
from upon.kafka.forms import (
    EVENTS,
    WHOLE,
    Events,
    invocation_entry,
    invocations_lane,
    result_entry,
    results_lane,
)
from upon.messages import (
    COALESCE_BYTES,
    Cause,
    Failure,
    Invocation,
    InvocationBatch,
    Result,
    ResultBatch,
    Started,
    decode,
)

ONE = Lane("events", EVENTS, partition=0)


def entry(number: int, size: int = 1, key: bytes | None = None) -> Entry:
    return Entry(str(number).encode().rjust(size), key=key)


def numbers(record: Record | None) -> list[int]:
    return [int(one.body or b"") for one in record.entries] if record is not None else []


def test_an_entry_leaves_at_once_and_what_comes_meanwhile_shares_the_next_record() -> None:
    lanes = Lanes()
    first = lanes.add(ONE, entry(1))
    assert numbers(first) == [1]
    assert [lanes.add(ONE, entry(n)) for n in (2, 3, 4)] == [None] * 3
    assert first is not None
    second = lanes.done(first)
    assert numbers(second) == [2, 3, 4]
    assert second is not None
    assert lanes.done(second) is None
    assert (lanes.count, lanes.bytes) == (0, 0)
    assert numbers(lanes.add(ONE, entry(5))) == [5]


def test_lanes_do_not_wait_for_each_other() -> None:
    lanes = Lanes()
    assert numbers(lanes.add(ONE, entry(1))) == [1]
    assert numbers(lanes.add(replace(ONE, partition=1), entry(2))) == [2]
    assert lanes.add(ONE, entry(3)) is None


def test_nothing_leaves_a_lane_without_a_window_until_it_is_filed_elsewhere_in_order() -> None:
    """How events wait that come before their partitions are known."""
    lanes, early = Lanes(), Lane("events", replace(EVENTS, window=0))
    assert [lanes.add(early, entry(n)) for n in range(4)] == [None] * 4
    assert lanes.count == 4
    waiting = lanes.give_up("events")
    assert (lanes.count, lanes.bytes) == (0, 0)
    records = lanes.add_all([(replace(ONE, partition=n % 2), one) for n, one in enumerate(waiting)])
    assert [numbers(record) for record in records] == [[0, 2], [1, 3]]
    assert lanes.count == 4


def test_a_record_is_capped_by_count_and_by_bytes() -> None:
    lane = Lane("events", Events(max_count=3, around=0), partition=0)
    lanes = Lanes(max_bytes=100)
    record = lanes.add(lane, entry(0))
    for n, size in enumerate([10, 10, 10, 10, 90, 200, 10], 1):
        lanes.add(lane, entry(n, size))
    seen = []
    while record is not None:
        seen.append(numbers(record))
        record = lanes.done(record)
    assert seen == [[0], [1, 2, 3], [4], [5], [6], [7]]


def test_whole_records_leave_side_by_side_in_order() -> None:
    lanes, lane = Lanes(), Lane("registry", WHOLE)
    records = [lanes.add(lane, entry(n, key=b"k%d" % n)) for n in range(WHOLE.window + 2)]
    assert [numbers(one) for one in records] == [[n] for n in range(WHOLE.window)] + [[], []]
    assert records[3] is not None
    assert records[3].key == b"k3"
    assert numbers(lanes.done(records[3])) == [WHOLE.window]


def test_an_entry_that_no_record_can_hold_is_refused_alone() -> None:
    lanes = Lanes()
    with pytest.raises(PayloadTooLarge, match="the limit is"):
        lanes.add(ONE, Entry(b"x" * ROOM))
    with pytest.raises(PayloadTooLarge):
        lanes.add(ONE, Entry(b"x", key=b"k" * ROOM))
    assert (lanes.count, lanes.bytes) == (0, 0)
    assert numbers(lanes.add(ONE, entry(1))) == [1]


def test_a_dropped_entry_takes_no_memory_and_does_not_leave() -> None:
    lanes = Lanes()
    first = lanes.add(ONE, entry(0))
    waiting = [entry(n, 1000) for n in range(1, 301)]
    for one in waiting:
        lanes.add(ONE, one)
    for one in waiting[:-1]:
        lanes.drop(ONE, one)
        lanes.drop(ONE, one)
    assert lanes.count == 2
    assert lanes.bytes < 3000
    assert first is not None
    lanes.drop(ONE, first.entries[0])  # it has left
    assert numbers(lanes.done(first)) == [300]


def test_entries_that_come_together_share_their_first_record() -> None:
    lanes, other = Lanes(), Lane("events", EVENTS, partition=1)
    records = lanes.add_all([(ONE, entry(1)), (other, entry(2)), (ONE, entry(3))])
    assert [numbers(one) for one in records] == [[1, 3], [2]]
    with pytest.raises(PayloadTooLarge):
        lanes.add_all([(ONE, entry(4)), (ONE, Entry(b"x" * ROOM))])
    assert lanes.count == 3
    whole = Lane("registry", WHOLE)
    assert [numbers(one) for one in lanes.add_all([(whole, entry(n)) for n in range(3)])] == [[0], [1], [2]]


def test_what_waits_for_a_topic_is_given_up_and_other_topics_are_not() -> None:
    lanes, other = Lanes(), Lane("other", EVENTS, partition=0)
    first = lanes.add(ONE, entry(0))
    for n in (1, 2):
        lanes.add(ONE, entry(n))
        lanes.add(other, entry(n))
    assert [one.body for one in lanes.give_up("events")] == [b"1", b"2"]
    assert first is not None
    assert lanes.done(first) is None
    assert lanes.count == 2


def invocation(number: int, **fields: Any) -> Invocation:
    cause = Cause(rule="r" * 50, rule_revision=1, event_id=f"e{number}", event_type="t", event_source="/s")
    return Invocation(id=f"id{number}", code="c", function="f", payload=b"p" * 40, cause=cause, **fields)


def test_a_batch_of_invocations_has_its_true_size_and_everything_in_order() -> None:
    """Counting payloads alone made one record of 22 MB of 52,000 invocations."""
    lane, lanes = invocations_lane("t", site="local", group="g", principal="p", code="c"), Lanes()
    record = lanes.add(lane, invocation_entry(invocation(0), 7))
    for n in range(1, 20_000):
        lanes.add(lane, invocation_entry(invocation(n), n))
    seen: list[Invocation] = []
    while record is not None:
        value, headers = record.encoded()
        assert value is not None
        batch = decode(value, InvocationBatch)
        first = len(seen)
        assert (batch.site, batch.group, batch.principal) == ("local", "g", "p")
        assert batch.submitted == (first or 7)
        assert len(value) <= COALESCE_BYTES
        assert (record.key, headers) == (b"c", [])
        seen += batch.invocations
        record = lanes.done(record)
    assert seen == [invocation(n) for n in range(20_000)]


def test_results_and_starts_share_a_record() -> None:
    lane, lanes = results_lane("t", site="s", group="g"), Lanes()
    one = Result(id="a", status="failed", failure=Failure(type="T", message="m"), group="g")
    first = lanes.add(lane, result_entry(one))
    start = Started(id="b", started=5)
    lanes.add(lane, result_entry(start))
    lanes.add(lane, result_entry(one))
    assert first is not None
    second = lanes.done(first)
    assert second is not None
    assert decode(second.encoded()[0] or b"", ResultBatch) == ResultBatch(site="s", results=(one,), started=(start,))
    assert second.key == b"g"


@given(st.lists(st.tuples(st.sampled_from([None, b"a", b"b"]), st.integers(0, 50)), min_size=1, max_size=30))
def test_the_size_that_is_counted_is_the_size_that_is_sent(spec: list[tuple[bytes | None, int]]) -> None:
    events = [Event(type="t", source="/s", subject=None if k is None else k.decode(), data="x" * n) for k, n in spec]
    lanes = Lanes(max_bytes=700)
    record = lanes.add(ONE, Entry(b"0"))
    for one in events:
        lanes.add(ONE, Entry(write_record([one])[0], key=None if one.key is None else one.key.encode()))
    assert record is not None
    record, seen = lanes.done(record), []
    while record is not None:
        value, headers = record.encoded()
        size = len(value or b"") + len(record.key or b"") + sum(len(n) + len(v) for n, v in headers)
        assert size <= 700 or len(record.entries) == 1
        assert dict(headers)["content-type"].decode() == (STRUCTURED if len(record.entries) == 1 else BATCH)
        found = list(read_record(value, headers))
        keys = {one.key for one in found if isinstance(one, Event)}
        assert (record.key is None) == (len(keys) > 1 or keys == {None})
        seen += found
        record = lanes.done(record)
    assert seen == events


@dataclass
class World:
    """A broker that refuses records over its own limit, and forgets some that must be sent again."""

    limit: int
    stored: list[tuple[int, int]]
    refused: list[tuple[int, int]]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.integers(1, 60)),
        st.tuples(st.just("answer"), st.integers(0, 9)),
        st.tuples(st.just("drop"), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(steps)
def test_any_history_keeps_order_and_loses_nothing(history: list[tuple[Any, ...]]) -> None:
    lanes, world = Lanes(max_bytes=120), World(50, [], [])
    under_way: deque[Record] = deque()
    accepted: list[tuple[int, int]] = []
    entries: list[tuple[Lane, Entry, int, int]] = []
    dropped: set[int] = set()

    def left(record: Record | None) -> None:
        if record is not None:
            under_way.append(record)

    def answer(at: int) -> None:
        record = under_way[at % len(under_way)]
        under_way.remove(record)
        lane = record.lane.partition or 0
        too_large = sum(one.size for one in record.entries) > world.limit
        if too_large and len(record.entries) > 1:
            left(lanes.refused(record))
            return
        (world.refused if too_large else world.stored).extend((lane, n) for n in numbers(record))
        left(lanes.done(record))

    for step in history:
        match step:
            case ("add", number, size):
                lane, one = replace(ONE, partition=number), entry(len(entries), size)
                left(lanes.add(lane, one))
                accepted.append((number, len(entries)))
                entries.append((lane, one, number, len(entries)))
            case ("answer", at) if under_way:
                answer(at)
            case ("drop", at) if entries:
                lane, one, _, number = entries[at % len(entries)]
                before = lanes.count
                lanes.drop(lane, one)
                if lanes.count < before:
                    dropped.add(number)
        waiting = [record.lane.partition for record in lanes.under_way()]
        assert len(waiting) == len(set(waiting)), "one record of a lane at a time"
    while under_way:
        answer(0)
    for part in range(3):
        wanted = [n for number, n in accepted if number == part and n not in dropped]
        assert sorted([n for number, n in world.stored + world.refused if number == part]) == wanted
        stored = [n for number, n in world.stored if number == part]
        assert stored == sorted(stored)
    assert (lanes.count, lanes.bytes) == (0, 0)
