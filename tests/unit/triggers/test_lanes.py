"""How events wait for Kafka: at once when idle, gathered under load, in order whatever happens."""

from __future__ import annotations

import json
import zlib

from hypothesis import given
from hypothesis import strategies as st

from upon.events import BATCH, STRUCTURED, Event, read_record, write_record
from upon.triggers.lanes import Entry, Lanes, Record


def partition_of(key: bytes, partitions: int) -> int:
    return zlib.crc32(key) % partitions


def lanes(partitions: int = 1, **limits: int) -> Lanes:
    made = Lanes(partition_of, **limits)
    made.learn(partitions)
    return made


def entry(key: str | None, number: int, size: int = 1) -> Entry:
    return Entry(None if key is None else key.encode(), json.dumps(number).encode().rjust(size))


def numbers(record: Record | None) -> list[int]:
    if record is None:
        return []
    value = json.loads(record.value)
    return value if isinstance(value, list) else [value]


def test_an_event_leaves_at_once_and_what_comes_meanwhile_shares_the_next_record() -> None:
    queue = lanes()
    first = queue.add(entry("a", 1))
    assert numbers(first) == [1]
    assert [queue.add(entry("a", n)) for n in (2, 3, 4)] == [None] * 3
    assert first is not None
    second = queue.done(first)
    assert numbers(second) == [2, 3, 4]
    assert second is not None
    assert queue.done(second) is None
    assert (queue.count, queue.bytes) == (0, 0)
    assert numbers(queue.add(entry("a", 5))) == [5]


def test_a_record_is_capped_by_count_and_by_bytes() -> None:
    queue = lanes(max_count=3, max_bytes=100)
    record = queue.add(entry("a", 0))
    sizes = [10, 10, 10, 10, 90, 200, 10]
    for n, size in enumerate(sizes, 1):
        queue.add(entry("a", n, size))
    seen = []
    while record is not None:
        seen.append(numbers(record))
        record = queue.done(record)
    assert seen == [[0], [1, 2, 3], [4], [5], [6], [7]]


def test_lanes_do_not_wait_for_each_other() -> None:
    queue = lanes(4)
    keys = ["a", "b", "c", "d", "e"]
    first = [key for key in keys if queue.add(entry(key, 1)) is not None]
    assert len(first) == len({partition_of(key.encode(), 4) for key in keys}) > 1


def test_events_wait_until_the_partitions_are_known() -> None:
    queue = Lanes(partition_of)
    assert queue.add(entry("a", 1)) is None
    assert queue.add(entry("a", 2)) is None
    assert [numbers(record) for record in queue.learn(1)] == [[1, 2]]


def test_events_without_a_key_go_round() -> None:
    queue = lanes(3)
    assert [record.lane for n in range(3) if (record := queue.add(entry(None, n)))] == [0, 1, 2]


def test_a_record_too_large_for_the_broker_is_sent_one_by_one_in_order() -> None:
    queue = lanes()
    first = queue.add(entry("a", 0))
    for n in (1, 2, 3):
        queue.add(entry("a", n))
    assert first is not None
    batch = queue.done(first)
    queue.add(entry("a", 4))
    queue.add(entry("a", 5))
    assert batch is not None
    record, seen = queue.too_large(batch), []
    while record is not None:
        seen.append(numbers(record))
        record = queue.done(record)
    assert seen == [[1], [2], [3], [4, 5]]
    assert queue.count == 0


def test_records_read_back_as_the_events_they_hold() -> None:
    events = [Event(type="t", source="/s", subject="k", data=n) for n in range(3)]
    queue = lanes()
    record = queue.add(Entry(b"k", write_record([events[0]])[0]))
    assert record is not None
    assert (record.key, record.headers) == (b"k", [("content-type", STRUCTURED.encode())])
    assert list(read_record(record.value, record.headers)) == events[:1]
    for event in events[1:]:
        queue.add(Entry(b"k" if event is events[1] else b"other", write_record([event])[0]))
    batch = queue.done(record)
    assert batch is not None
    assert (batch.key, batch.headers) == (None, [("content-type", BATCH.encode())])
    assert list(read_record(batch.value, batch.headers)) == events[1:]


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.integers(0, 3)), max_size=200),
    st.integers(1, 5),
    st.integers(1, 7),
)
def test_nothing_is_lost_or_reordered_within_a_key(
    steps: list[tuple[str, bool, int]], partitions: int, cap: int
) -> None:
    queue = lanes(partitions, max_count=cap)
    under_way: list[Record] = []
    arrived: dict[str, list[int]] = {}
    sent: dict[str, list[int]] = {}

    def follow(record: Record | None) -> None:
        if record is not None:
            assert record.lane not in {other.lane for other in under_way}
            under_way.append(record)

    def finish(index: int) -> None:
        record = under_way.pop(index % len(under_way))
        for one in record.entries:
            assert one.key is not None
            arrived.setdefault(one.key.decode(), []).append(int(one.body))
        follow(queue.done(record))

    for number, (key, complete, which) in enumerate(steps):
        sent.setdefault(key, []).append(number)
        follow(queue.add(entry(key, number)))
        if complete and under_way:
            finish(which)
        assert queue.count == number + 1 - sum(map(len, arrived.values()))
    while under_way:
        finish(0)
    assert arrived == sent
    assert (queue.count, queue.bytes) == (0, 0)
