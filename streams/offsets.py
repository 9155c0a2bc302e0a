"""Up to where each partition of `upon.events` is done. Pure bookkeeping; the worker commits what it says.

Faust's own acknowledgement is not used: it acknowledges an event whose agent was cancelled in the middle, and it can
commit past one that is still in flight after a rebalance. Here a position moves only when `done` is called, which
happens after Kafka has everything that the record caused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

Partition = TypeVar("Partition")


class Offsets(Generic[Partition]):
    """The next offset to read of each partition, as far as it differs from what is committed."""

    def __init__(self) -> None:
        self._next: dict[Partition, int] = {}

    def done(self, partition: Partition, offset: int) -> None:
        """Note that the record at `offset`, and all before it, are done."""
        self._next[partition] = offset + 1

    def pending(self) -> Mapping[Partition, int]:
        """Return what is to be committed."""
        return dict(self._next)

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Note that `offsets` are committed; what moved on meanwhile stays pending."""
        for partition, offset in offsets.items():
            if self._next.get(partition) == offset:
                del self._next[partition]

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions that were taken away: whoever has them now reads on from the last commit."""
        for partition in partitions:
            self._next.pop(partition, None)
