"""Which parts of several logs are read for the newest of what they hold, against reading them whole."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from upon.service.newest import Key, Newest


@dataclass(frozen=True)
class Record:
    """A record of a time, with so many things that are wanted; no record at all: a gap in the log."""

    time: int
    wanted: int
    size: int
    gap: bool = False


def log_of(some: list[tuple[int, int, int, bool]]) -> list[Record]:
    at, found = 0, []
    for later, wanted, size, gap in some:
        at += later
        found.append(Record(at, 0 if gap else wanted, size, gap))
    return found


RECORDS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 50), st.sampled_from([False] * 9 + [True])),
    max_size=40,
).map(log_of)


def keys(partition: int, log: list[Record], first: int = 0, end: int | None = None) -> list[Key]:
    end = len(log) if end is None else end
    return [(log[n].time, partition, n, index) for n in range(first, end) for index in range(log[n].wanted)]


def run(logs: list[list[Record]], limit: int, room: int, stop_after: int = 1000) -> tuple[Newest[int, Key], int]:
    """Read until it is done; return it, and how many bytes were read."""
    newest: Newest[int, Key] = Newest({n: (0, len(log)) for n, log in enumerate(logs)}, limit, room)
    total = rounds = 0
    while windows := newest.windows():
        for partition, (first, end) in windows.items():
            records = [one for one in logs[partition][first:end] if not one.gap]
            for key in keys(partition, logs[partition], first, end):
                newest.offer(key, key)
            size = sum(one.size for one in records)
            newest.read(partition, (first, end), records[0].time if records else None, len(records), size)
            total += size
        rounds += 1
        if rounds >= stop_after:
            newest.stop()
    return newest, total


@given(st.lists(RECORDS, max_size=4), st.integers(1, 30))
def test_the_newest_are_found_whatever_the_logs_hold(logs: list[list[Record]], limit: int) -> None:
    newest, _ = run(logs, limit, room=10**9)
    everything = sorted(key for n, log in enumerate(logs) for key in keys(n, log))
    assert [found for _, found in newest.found] == everything[-limit:]
    assert newest.complete_since is None
    assert newest.more == (len(everything) >= limit)


@given(st.lists(RECORDS, max_size=4), st.integers(1, 30), st.integers(1, 500), st.integers(1, 5))
def test_when_it_stops_nothing_is_missing_since_the_time_it_says(
    logs: list[list[Record]], limit: int, room: int, stop_after: int
) -> None:
    newest, _ = run(logs, limit, room, stop_after)
    everything = sorted(key for n, log in enumerate(logs) for key in keys(n, log))
    since = newest.complete_since
    there = [key for key in everything if since is None or key[0] > since]
    found = [found for _, found in newest.found if since is None or found[0] > since]
    assert found == there[-limit:]


def test_little_is_read_of_a_long_log_for_a_few() -> None:
    log = [Record(time, 1, 100) for time in range(100_000)]
    newest, read = run([log, log], limit=50, room=10**9)
    assert len(newest.found) == 50
    assert read < 2 * 2 * 64 * 100
    other, read_more = run([log, [Record(0, 1, 100)]], limit=50, room=10**9)
    assert [key[2] for key, _ in other.found] == list(range(99_950, 100_000))
    assert read_more < 130 * 100, "the other is asked once"


def test_the_budget_holds_for_records_of_any_size() -> None:
    for size in (10, 10_000):
        log = [Record(time, 0, size) for time in range(10_000)]
        newest, read = run([log] * 4, limit=50, room=64 * 1024)
        assert read < 2 * 64 * 1024
        assert newest.found == []
        assert newest.more
        assert newest.complete_since is not None
        assert newest.complete_since < 10_000
