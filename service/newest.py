"""The newest of many logs: which part of each to read next, from the end backwards, within a budget. Pure, no I/O.

    newest = Newest(spans, limit=50, room=32 MiB)      spans: partition → first offset, offset behind the last
    while windows := newest.windows():                 partition → the part of it that is to be read now
        … offer(what was found), then read(partition, time of its first record, bytes)
    newest.found                                       oldest first; nothing is missing after `newest.complete_since`

Each round reads twice as many records as the one before, and only of partitions that may hold something newer than
the oldest that was found:

    partition 0   ······[ round 3 ][ round 2 ][1]
    partition 1   ··················[ round 2 ][1]     what it holds before that is older than all that is kept
                  older                     newer

Guarantee: what is returned is all there is after `complete_since`, or the newest `limit` of it. Times of a partition
rise, but for a broker whose clock was set back.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)
F = TypeVar("F")
Key = tuple[int, int, int, int]
"""What is found is sorted by it: time (ms), partition, offset, index in the record."""


class Newest(Generic[P, F]):
    """Finds the newest of what is offered, while it says what to read.

    Args:
        spans: what there is to read: first offset, and the one behind the last.
        limit: how much is kept.
        room: bytes that may be read; a round that has begun is read to its end.
    """

    def __init__(self, spans: Mapping[P, tuple[int, int]], limit: int, room: int) -> None:
        self._left = {one: span for one, span in spans.items() if span[0] < span[1]}
        self._reached: dict[P, int] = {}  # time of the first record that was read
        self._limit, self._room = limit, room
        self._bytes = self._records = 0
        self._count = 1  # records of each partition in the next round
        self._kept: list[tuple[Key, F]] = []  # a heap: the oldest is first
        self._stopped = False

    def windows(self) -> dict[P, tuple[int, int]]:
        """Return what to read now; nothing: it is done."""
        wanted = self._wanted()
        if self._stopped or not wanted:
            return {}
        count = self._count
        if self._records:
            mean = self._bytes / self._records + 1
            count = min(count, int((self._room - self._bytes) / (mean * len(wanted))))
        if count < 1:
            self.stop()
            return {}
        self._count *= 2
        return {one: (max(self._left[one][0], self._left[one][1] - count), self._left[one][1]) for one in wanted}

    def wants(self, key: Key) -> bool:
        """Whether something of this key would be kept."""
        return len(self._kept) < self._limit or key > self._kept[0][0]

    def offer(self, key: Key, found: F) -> None:
        """Take in what was found, if it is among the newest. Keys are offered once each."""
        if len(self._kept) < self._limit:
            heapq.heappush(self._kept, (key, found))
        elif key > self._kept[0][0]:
            heapq.heapreplace(self._kept, (key, found))

    def read(self, partition: P, window: tuple[int, int], since: int | None, count: int, size: int) -> None:
        """Take in that a window was read to its end.

        Args:
            since: time of its first record (ms); None: it had none.
            count, size: its records and their bytes.
        """
        self._bytes += size
        self._records += count
        first = self._left[partition][0]
        if window[0] > first:
            self._left[partition] = (first, window[0])
        else:
            del self._left[partition]
        if since is not None:
            self._reached[partition] = min(since, self._reached.get(partition, since))

    def stop(self) -> None:
        """Read no further: the budget is spent."""
        self._stopped = True

    @property
    def more(self) -> bool:
        """Whether there may be older ones: reading stopped, or the limit is reached."""
        return self._stopped or len(self._kept) == self._limit

    @property
    def complete_since(self) -> int | None:
        """After this time (ms) nothing is missing but what the limit leaves out; None: of all there is."""
        if not self._stopped or not (wanted := self._wanted()):
            return None
        return max(self._reached.get(one, 2**63) for one in wanted)

    @property
    def found(self) -> list[tuple[Key, F]]:
        """What was found, oldest first."""
        since = self.complete_since
        kept = sorted(self._kept, key=lambda one: one[0])
        return kept if since is None else [one for one in kept if one[0][0] >= since]

    def _wanted(self) -> list[P]:
        """Partitions that may hold something that would be kept."""
        if len(self._kept) < self._limit:
            return list(self._left)
        oldest = self._kept[0][0][0]
        return [one for one in self._left if self._reached.get(one, 2**63) >= oldest]
