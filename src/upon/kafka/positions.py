"""Where to read on in a partition whose log may have changed behind the reader's back. Pure.

A power cut takes the end of a log that was not on the disk yet; a topic may be deleted and made anew; retention takes
the beginning. An offset alone does not tell: after a loss it may be past the end, or name another record. So a
position goes with the time (the broker's, ms) of the last record before it, and Kafka is asked for the first record
that is newer: whatever was lost, all that came since is from there on.

    intact:  … [98, t=5] [99, t=7] │ [100, t=9]    position 100, time 7; first newer record: 100 → 100
    lost:    … [59, t=4] │ [60, t=9] [61, t=9]     position 100, time 7; first newer record:  60 →  60

Guarantee: nothing that came after the last record read is passed over; what is read twice has ids that tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Partition = TypeVar("Partition")


@dataclass(frozen=True, slots=True)
class Position:
    """The next offset to read, and the broker's time of the last record before it (ms; None: unknown)."""

    offset: int
    time: int | None = None

    def metadata(self) -> str:
        """Return what is committed beside the offset."""
        return "" if self.time is None else f"time={self.time}"


def committed_position(offset: int, metadata: str | None) -> Position:
    """Return a position that was committed, with its metadata; foreign metadata tells no time."""
    name, _, value = (metadata or "").partition("=")
    known = name == "time" and value.isascii() and value.isdigit() and len(value) < 19
    return Position(offset, int(value) if known else None)


@dataclass(frozen=True, slots=True)
class Log:
    """A partition's log: its first offset, its next one, and that of the first record newer than a position's time."""

    begin: int
    end: int
    newer: int | None = None  # its offset; None: there is none


def resume(position: Position, log: Log) -> int:
    """Return the offset at which to read on."""
    if position.offset < log.begin:  # retention was faster than the reader
        return log.begin
    if position.time is None:
        return position.offset if position.offset <= log.end else log.begin
    newer = log.end if log.newer is None else log.newer
    return max(min(position.offset, newer), log.begin)


class Times(Generic[Partition]):
    """The times of records that were read and are not committed yet, to commit a position with its own."""

    def __init__(self) -> None:
        self._times: dict[Partition, deque[tuple[int, int]]] = {}

    def read(self, partition: Partition, offset: int, time: int) -> None:
        """Take in that a record was read; offsets of a partition rise."""
        self._times.setdefault(partition, deque()).append((offset, time))

    def at(self, partition: Partition, offset: int) -> Position:
        """Return the position of an offset up to which is read. Earlier ones are not asked for any more."""
        times, before = self._times.get(partition, deque()), None
        while times and times[0][0] < offset:
            before = times.popleft()
        if before is None:
            return Position(offset)
        times.appendleft(before)
        return Position(offset, before[1])

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions that are read anew."""
        for partition in partitions:
            self._times.pop(partition, None)
