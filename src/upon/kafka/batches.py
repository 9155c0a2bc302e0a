"""How records wait for Kafka, and how they share one: lanes, each with what waits and what is under way. Pure, no I/O.

    add ──▶ lane A: [e4 e5 e6]   under way: record(e1 e2 e3) ──▶ Kafka ──▶ done    ──▶ the next record leaves
            lane B: []           under way: none: an entry leaves at once └▶ refused ──▶ its halves, one after the other

Guarantees:
  - An entry leaves at once when its lane has room; else it waits and shares the next record with what came meanwhile,
    up to a count and a size: the true one, of the bytes as they will be sent. So entries are gathered under load only.
  - The order of a lane is kept: what follows a record does not leave before it, however often it must be sent again.
  - A record that is refused for its size is split down to the single entry that is too large; the others leave.
  - An entry that can never fit into a record is refused by `add`, alone.
  - An entry that nobody waits for any more is dropped as long as it has not left.

Both shells stand on this: `upon.kafka.outbox` (aiokafka) and `upon.triggers.publisher` (threads, kafka-python).
Not here: the clock, Kafka, what entries mean (`upon.kafka.forms`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from upon.errors import PayloadTooLarge
from upon.messages import COALESCE_BYTES, MAX_RECORD

ROOM = MAX_RECORD - 4096
"""Bytes: the largest value, key and headers of one record; the rest is for Kafka's own framing."""
ENTRY_BYTES = 400
"""Bytes that a waiting entry takes in memory beside its body, about."""

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(slots=True, eq=False)
class Entry:
    """What one record or a part of it is made of, encoded.

    Args:
        body: its bytes; None, for a whole record alone, is a tombstone.
        then: called once with its place in Kafka, or with the reason why it will never have one.
        key: of the Kafka record, where the lane has none.
        at: when it was accepted, ns since the epoch; 0 = not told.
        kind: which list of a record it belongs to, where the form has several.
    """

    body: bytes | None
    then: Callable[[Place | Exception], None] | None = None
    key: bytes | None = None
    at: int = 0
    kind: str = ""
    waits: bool = False  # in a lane, and not in a record that has left

    @property
    def size(self) -> int:
        return len(self.body or b"") + len(self.key or b"")


class Form(Protocol):
    """How entries share a record. Equal forms make equal lanes: a frozen dataclass."""

    @property
    def max_count(self) -> int:
        """Entries in one record, at most."""

    @property
    def window(self) -> int:
        """Records of one lane under way at once, at most; more than one only where entries are never gathered."""

    @property
    def around(self) -> int:
        """Bytes of a record's value and headers without entries, at most."""

    @property
    def each(self) -> int:
        """Bytes that an entry takes in the value beside its body, at most."""

    def join(self, entries: Sequence[Entry]) -> tuple[bytes | None, Headers]:
        """Return value and headers of the record that holds `entries`."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Entries that keep their order among each other and may share a record.

    Args:
        topic: where they go.
        form: how they share a record.
        key: of the Kafka record; None: the one that its entries have in common, if they have.
        partition: None: the key decides.
    """

    topic: str
    form: Form
    key: bytes | None = None
    partition: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """Entries that travel together."""

    lane: Lane
    entries: tuple[Entry, ...]

    @property
    def key(self) -> bytes | None:
        if self.lane.key is not None:
            return self.lane.key
        first = self.entries[0].key
        return first if all(entry.key == first for entry in self.entries) else None

    def encoded(self) -> tuple[bytes | None, Headers]:
        """Return value and headers."""
        return self.lane.form.join(self.entries)


@dataclass(slots=True)
class _Line:
    """What a lane holds. `cuts`: so many entries make up its next records, after one that was refused."""

    waiting: deque[Entry] = field(default_factory=deque)
    under_way: list[Record] = field(default_factory=list)
    cuts: deque[int] = field(default_factory=deque)
    dropped: int = 0


class Lanes:
    """All entries that are not in Kafka yet.

    Args:
        max_bytes: of a record that several entries share.

    Attributes:
        count: entries, waiting and under way.
        bytes: what they take, about.
    """

    def __init__(self, max_bytes: int = COALESCE_BYTES) -> None:
        self.count = 0
        self.bytes = 0
        self._max_bytes = max_bytes
        self._lines: dict[Lane, _Line] = {}

    def add(self, lane: Lane, entry: Entry) -> Record | None:
        """Accept an entry; return the record that now leaves, if one does.

        Raises:
            PayloadTooLarge: no record can hold it; it was not accepted.
        """
        check(lane, entry)
        return self._next(lane, self._file(lane, entry))

    def add_all(self, pairs: Sequence[tuple[Lane, Entry]]) -> list[Record]:
        """Accept entries that come together, so that they share their first record; return the records that now leave.

        Raises:
            PayloadTooLarge: no record can hold one of them; none was accepted.
        """
        for lane, entry in pairs:
            check(lane, entry)
        for lane, entry in pairs:
            self._file(lane, entry)
        lanes = dict.fromkeys(lane for lane, _ in pairs)
        out: list[Record] = []
        for lane in lanes:
            while (record := self._next(lane, self._lines[lane])) is not None:
                out.append(record)
        return out

    def done(self, record: Record) -> Record | None:
        """Take in that a record is in Kafka, or given up; return the one that now leaves its lane, if any."""
        for entry in record.entries:
            self._forget(entry)
        return self._after(record)

    def refused(self, record: Record) -> Record | None:
        """Take in that a record of several entries is too large for the broker; return the half that now leaves."""
        line = self._lines[record.lane]
        for entry in reversed(record.entries):
            entry.waits = True
            line.waiting.appendleft(entry)
        middle = len(record.entries) // 2
        line.cuts.extendleft((len(record.entries) - middle, middle))
        return self._after(record)

    def drop(self, lane: Lane, entry: Entry) -> None:
        """Forget an entry that nobody waits for, if it has not left; one that is under way goes its way."""
        if not entry.waits:
            return
        self._forget(entry)
        entry.waits, entry.body, entry.then = False, None, None
        line = self._lines[lane]
        line.dropped += 1
        if line.dropped > 64 and line.dropped > len(line.waiting) // 2:
            line.waiting = deque(one for one in line.waiting if one.waits)
            line.dropped = 0

    def give_up(self, topic: str) -> list[Entry]:
        """Take out everything that waits for a topic, and return it; what is under way stays."""
        out: list[Entry] = []
        for lane, line in list(self._lines.items()):
            if lane.topic == topic:
                out += [entry for entry in line.waiting if entry.waits]
                line.waiting.clear()
                line.cuts.clear()
                line.dropped = 0
                if not line.under_way:
                    del self._lines[lane]
        for entry in out:
            entry.waits = False
            self._forget(entry)
        return out

    def under_way(self) -> Iterator[Record]:
        """Iterate over the records that have left and are not in Kafka yet, in the order of each lane."""
        for line in self._lines.values():
            yield from line.under_way

    def _file(self, lane: Lane, entry: Entry) -> _Line:
        line = self._lines.get(lane)
        if line is None:
            line = self._lines[lane] = _Line()
        self.count += 1
        self.bytes += entry.size + ENTRY_BYTES
        entry.waits = True
        line.waiting.append(entry)
        return line

    def _forget(self, entry: Entry) -> None:
        self.count -= 1
        self.bytes -= entry.size + ENTRY_BYTES

    def _after(self, record: Record) -> Record | None:
        line = self._lines[record.lane]
        line.under_way = [one for one in line.under_way if one is not record]
        return self._next(record.lane, line)

    def _next(self, lane: Lane, line: _Line) -> Record | None:
        if len(line.under_way) >= lane.form.window:
            return None
        entries = self._take(lane, line)
        if not entries:
            if not line.under_way and not line.waiting:
                del self._lines[lane]
            return None
        record = Record(lane, tuple(entries))
        line.under_way.append(record)
        return record

    def _take(self, lane: Lane, line: _Line) -> list[Entry]:
        """Return the entries of the next record."""
        form, waiting = lane.form, line.waiting
        most = line.cuts.popleft() if line.cuts and waiting else form.max_count
        entries: list[Entry] = []
        size = form.around
        while waiting and len(entries) < most:
            entry = waiting[0]
            if not entry.waits:
                waiting.popleft()
                line.dropped -= 1
                continue
            size += form.each + entry.size
            if entries and size > self._max_bytes:
                break
            entry.waits = False
            entries.append(waiting.popleft())
        return entries


def check(lane: Lane, entry: Entry) -> None:
    """Raise PayloadTooLarge if no record of the lane can hold the entry."""
    size = lane.form.around + lane.form.each + len(lane.key or b"") + entry.size
    if size > ROOM:
        raise PayloadTooLarge(
            f"a record of {size:,} bytes for {lane.topic}, the limit is {ROOM:,}: "
            "pass a path or write to shared storage"
        )


def partition_of(key: bytes, partitions: int, murmur2: Callable[[bytes], Any]) -> int:
    """Return a key's partition by Kafka's own rule, so that all producers agree; `murmur2` is the client's."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions
