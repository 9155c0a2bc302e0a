"""Where to read on in a partition whose log may have changed behind the reader's back. Pure.

A power cut takes the end of a log that was not on the disk yet; a topic may be deleted and made anew; retention takes
the beginning. An offset alone does not tell: after a loss it may be past the end, or name another record. So a
position goes with the time (the broker's, ms) of the last record before it, and Kafka is asked for the first record
that is newer: whatever was lost, all that came since is from there on.

    intact:  … [98, t=5] [99, t=7] │ [100, t=9]    position 100, time 7; first newer record: 100 → 100
    lost:    … [59, t=4] │ [60, t=9] [61, t=9]     position 100, time 7; first newer record:  60 →  60

Who handles records side by side is done with many beyond the lowest that is open. A commit says so too (`Beyond`):
else one slow task would have all that was done behind it done again after a kill.

Guarantee: nothing that came after the last record read is passed over; what is read twice has ids that tell.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

Partition = TypeVar("Partition")

METADATA = 4000
"""Characters of metadata that a commit may have: brokers take 4,096 (`offset.metadata.max.bytes`)."""
_DIGITS = 18  # of any number there


@dataclass(frozen=True, slots=True)
class Beyond:
    """What is settled from a committed offset on: all offsets below `read` that are not in `open`.

    Attributes:
        read: an offset; nothing is said of it, and of what comes after it.
        newest: the broker's time of a record at `read` or before, or somewhat after it (ms): to notice lost records.
        open: spans (first, last) of offsets that are not settled, both included, in rising order.
    """

    read: int
    newest: int
    open: tuple[tuple[int, int], ...] = ()

    def settled(self, offset: int) -> bool:
        """Tell whether this offset, at or after the committed one, is settled."""
        if offset >= self.read:
            return False
        at = bisect_right(self.open, (offset, offset))
        after = at < len(self.open) and self.open[at][0] == offset
        return not after and not (at and self.open[at - 1][1] >= offset)

    def until(self, end: int) -> Beyond:
        """Return what holds of it in a log that has lost all from `end` on."""
        return self if end >= self.read else Beyond(end, self.newest, self.open)


@dataclass(frozen=True, slots=True)
class Position:
    """The next offset to read, and the broker's time of the last record before it (ms; None: unknown)."""

    offset: int
    time: int | None = None
    beyond: Beyond | None = None

    def metadata(self) -> str:
        """Return what is committed beside the offset, such as ``time=170 read=500200 newest=190 open=0-2,103``.

        Open offsets are counted from the committed one on. Of more than `METADATA` holds, only the first are said,
        and `read` is as far as that is true.
        """
        words = [] if self.time is None else [f"time={self.time}"]
        if (beyond := self.beyond) is not None and beyond.read > self.offset:
            room, read, spans = METADATA - 3 * (_DIGITS + 8), beyond.read, list[str]()
            for first, last in beyond.open:
                span = f"{first - self.offset}" + (f"-{last - self.offset}" if last > first else "")
                room -= len(span) + 1
                if room < 0:
                    read = first
                    break
                spans.append(span)
            words += [f"read={read}", f"newest={beyond.newest}", f"open={','.join(spans)}"]
        return " ".join(words)


_WORD = re.compile(rf"(time|read|newest)=([0-9]{{1,{_DIGITS}}})|(open)=((?:[0-9]{{1,{_DIGITS}}}[-,]?)*)", re.ASCII)


def committed_position(offset: int, metadata: str | None) -> Position:
    """Return a position that was committed, with its metadata; foreign metadata tells nothing."""
    words: dict[str, str] = {}
    for word in (metadata or "").split(" "):
        if (found := _WORD.fullmatch(word)) is None:
            return Position(offset)
        words[found[1] or found[3]] = found[2] or found[4] or ""
    time = int(words["time"]) if "time" in words else None
    if not {"read", "newest", "open"} <= words.keys():
        return Position(offset, time)
    try:
        spans = [tuple(map(int, span.split("-"))) for span in words["open"].split(",") if span]
    except ValueError:
        return Position(offset, time)
    open_ = tuple((offset + span[0], offset + span[-1]) for span in spans)
    if any(last < first for first, last in open_) or any(a[1] >= b[0] for a, b in pairwise(open_)):
        return Position(offset, time)
    return Position(offset, time, Beyond(int(words["read"]), int(words["newest"]), open_))


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
