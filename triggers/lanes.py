"""How events wait for Kafka: one lane per partition, one record of a lane under way at a time. Pure, no I/O.

    publish ──▶ [waiting: partitions not known yet] ──▶ lane 0: [e4 e5 e6]  under way: record(e1 e2 e3)
                                                        lane 1: []          under way: none → next event leaves at once

An event leaves at once when nothing of its lane is under way; else it waits and shares the next record with what came
meanwhile, up to a count and a size. So events are gathered only under load, and their order is kept: what follows a
record is not sent before Kafka has it, however often that record must be sent.

Not here: threads, the clock, Kafka (`publisher`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from upon.events import BATCH, STRUCTURED
from upon.messages import COALESCE_BYTES

MAX_COUNT = 500
"""Events in one record: what a consumer takes up in one go."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An accepted event: its key, its bytes (structured JSON), and whom to tell when it is safe."""

    key: bytes | None
    body: bytes
    then: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Events that travel together to one partition."""

    lane: int
    entries: tuple[Entry, ...]

    @property
    def key(self) -> bytes | None:
        """The Kafka key, if the events have one in common; the partition is given anyway."""
        first = self.entries[0].key
        return first if all(entry.key == first for entry in self.entries) else None

    @property
    def value(self) -> bytes:
        if len(self.entries) == 1:
            return self.entries[0].body
        return b"[" + b",".join(entry.body for entry in self.entries) + b"]"

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        return [("content-type", (STRUCTURED if len(self.entries) == 1 else BATCH).encode())]


@dataclass(slots=True)
class _Lane:
    waiting: deque[Entry] = field(default_factory=deque)
    under_way: Record | None = None
    alone: int = 0  # so many events leave one by one, after a record that was too large for the broker


class Lanes:
    """All accepted events that are not safe yet.

    Args:
        partition_of: a key's partition among so many; Kafka's own rule, so that other producers agree.
        max_count, max_bytes: of one record.
    """

    def __init__(
        self,
        partition_of: Callable[[bytes, int], int],
        max_count: int = MAX_COUNT,
        max_bytes: int = COALESCE_BYTES,
    ) -> None:
        self.count = 0
        self.bytes = 0
        self._partition_of = partition_of
        self._max_count, self._max_bytes = max_count, max_bytes
        self._waiting: deque[Entry] = deque()
        self._lanes: list[_Lane] = []
        self._next_lane = 0

    @property
    def known(self) -> bool:
        """Whether the number of partitions is known."""
        return bool(self._lanes)

    def add(self, entry: Entry) -> Record | None:
        """Accept an event; return the record that now leaves, if one does."""
        self.count += 1
        self.bytes += len(entry.body)
        if not self._lanes:
            self._waiting.append(entry)
            return None
        return self._next(self._file(entry))

    def learn(self, partitions: int) -> list[Record]:
        """Take in how many partitions there are; return the records that now leave.

        A number other than before applies to keys that come later; what waits stays in its lane.
        """
        while len(self._lanes) < partitions:
            self._lanes.append(_Lane())
        touched = {self._file(entry) for entry in self._waiting}
        self._waiting.clear()
        return [record for lane in sorted(touched) if (record := self._next(lane))]

    def done(self, record: Record) -> Record | None:
        """Take in that Kafka has a record; return the one that now leaves its lane, if any."""
        self.count -= len(record.entries)
        self.bytes -= sum(len(entry.body) for entry in record.entries)
        self._lanes[record.lane].under_way = None
        return self._next(record.lane)

    def too_large(self, record: Record) -> Record | None:
        """Take in that the broker refuses a record of several events for its size: they leave one by one."""
        lane = self._lanes[record.lane]
        lane.under_way = None
        lane.waiting.extendleft(reversed(record.entries))
        lane.alone += len(record.entries)
        return self._next(record.lane)

    def under_way(self) -> Sequence[Record]:
        """Return the records that are being sent."""
        return [lane.under_way for lane in self._lanes if lane.under_way is not None]

    def _file(self, entry: Entry) -> int:
        if entry.key is None:
            lane = self._next_lane
            self._next_lane = (lane + 1) % len(self._lanes)
        else:
            lane = self._partition_of(entry.key, len(self._lanes))
        self._lanes[lane].waiting.append(entry)
        return lane

    def _next(self, number: int) -> Record | None:
        lane = self._lanes[number]
        if lane.under_way is not None or not lane.waiting:
            return None
        entries = [lane.waiting.popleft()]
        size = len(entries[0].body)
        if lane.alone:
            lane.alone -= 1
        else:
            while (
                lane.waiting and len(entries) < self._max_count and size + len(lane.waiting[0].body) < self._max_bytes
            ):
                entries.append(lane.waiting.popleft())
                size += len(entries[-1].body) + 1
        lane.under_way = Record(number, tuple(entries))
        return lane.under_way
