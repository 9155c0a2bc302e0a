"""Which offsets may be committed: per partition, the lowest one with work that is not settled in Kafka.

    read:      100  101  102  103  104            open counts:  101 → 2   103 → 1
    settled:    ✓    ·    ✓    ·    ✓             commit position: 101 (the next to read after a restart)
                                                  beyond it: read to 105, open 101, 103

Pure. For readers that handle records side by side: a dispatcher (an offset is open as long as an invocation of it has
no result), a stream worker (as long as something that it caused is not in Kafka). Offsets are read in rising order,
with gaps where Kafka has none; each is opened once for every effect of it that is not settled, and closed as many
times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from upon.kafka.positions import Beyond

Partition = TypeVar("Partition")
MOST_OPEN = 3000
"""Open offsets that `beyond` names: more than a commit has room for."""


class Offsets(Generic[Partition]):
    """Open offsets of every partition."""

    def __init__(self) -> None:
        self._open: dict[Partition, dict[int, int]] = {}
        self._order: dict[Partition, deque[int]] = {}
        self._next: dict[Partition, int] = {}
        self._told: dict[Partition, int] = {}
        self._before: dict[Partition, Beyond] = {}  # what was settled beyond the commit with which reading began
        self._closed: set[Partition] = set()  # where something was settled since this was asked last

    def resume(self, partition: Partition, beyond: Beyond) -> None:
        """Take in what is settled, before anything of a partition is read."""
        self._before[partition] = beyond

    def read(self, partition: Partition, offset: int) -> bool:
        """Take in that a record was read; False if it was read or settled before and is to be passed over."""
        if offset < self._next.get(partition, 0):
            return False
        self._next[partition] = offset + 1
        return not self.was_settled(partition, offset)

    def was_settled(self, partition: Partition, offset: int) -> bool:
        """Tell whether a record was settled before reading began (see `resume`)."""
        before = self._before.get(partition)
        return before is not None and before.settled(offset)

    def open(self, partition: Partition, offset: int) -> None:
        """One more effect of this offset, the last that was read, is not settled."""
        counts = self._open.setdefault(partition, {})
        if offset not in counts:
            self._order.setdefault(partition, deque()).append(offset)
        counts[offset] = counts.get(offset, 0) + 1

    def close(self, partition: Partition, offset: int) -> None:
        """One effect of this offset is settled.

        Raises:
            KeyError: it has none that is open.
        """
        counts = self._open[partition]
        counts[offset] -= 1
        if not counts[offset]:
            del counts[offset]
            self._closed.add(partition)

    def position(self, partition: Partition) -> int:
        """Return the lowest offset that is not settled; everything below may be forgotten."""
        order, counts = self._order.get(partition, deque()), self._open.get(partition, {})
        while order and order[0] not in counts:
            order.popleft()
        return order[0] if order else self._next.get(partition, 0)

    def advanced(self) -> dict[Partition, int]:
        """Return the positions that have moved since this was asked last."""
        moved = {p: at for p in self._next if (at := self.position(p)) != self._told.get(p, 0)}
        self._told.update(moved)
        return moved

    def closed(self) -> set[Partition]:
        """Return the partitions where an offset was settled since this was asked last."""
        closed, self._closed = self._closed, set()
        return closed

    def beyond(self, partition: Partition, newest: int) -> Beyond:
        """Return what is settled from `position` on; `newest` as in `Beyond`."""
        counts, read = self._open.get(partition, {}), self._next.get(partition, 0)
        spans: list[tuple[int, int]] = []
        for offset in self._order.get(partition, ()):
            if offset not in counts:
                continue
            if spans and spans[-1][1] == offset - 1:
                spans[-1] = spans[-1][0], offset
            elif len(spans) < MOST_OPEN:
                spans.append((offset, offset))
            else:
                return Beyond(offset, newest, tuple(spans))
        before = self._before.get(partition)
        if before is not None and read < before.read:  # not read again as far as it was: the rest stands
            spans += [(max(first, read), last) for first, last in before.open if last >= read]
            read = before.read
        return Beyond(read, newest, tuple(spans))

    def counts(self) -> dict[tuple[Partition, int], int]:
        """Return the count of unsettled effects by (partition, offset)."""
        return {(p, offset): count for p, counts in self._open.items() for offset, count in counts.items()}

    def positions(self) -> dict[Partition, int]:
        """Return what was told last by `advanced`, by partition."""
        return dict(self._told)

    def read_to(self) -> dict[Partition, int]:
        """Return the next offset to be read, by partition."""
        return dict(self._next)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions that are read anew, here or elsewhere, from their last commit."""
        for partition in partitions:
            for table in (self._open, self._order, self._next, self._told, self._before):
                table.pop(partition, None)
