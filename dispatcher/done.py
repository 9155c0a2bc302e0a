"""The ids whose results are in Kafka: what comes again is not done again. Bounded; the oldest are forgotten.

Two generations: when the younger is full the older is dropped, so at least `limit / 2` of the newest are known.
A UUID is kept as its 128-bit number (about 90 bytes an id, all in all).
"""

from __future__ import annotations

DONE_LIMIT = 1_000_000
"""Ids remembered, at most: about 90 MB."""


def _key(id: str) -> int | str:
    if len(id) == 36:
        try:
            return int(id.replace("-", ""), 16)
        except ValueError:
            pass
    return id


class DoneIds:
    """A set of ids that forgets the oldest.

    Args:
        limit: how many it holds at most, ≥ 2.
    """

    def __init__(self, limit: int = DONE_LIMIT) -> None:
        self._half = limit // 2
        self._old: set[int | str] = set()
        self._new: set[int | str] = set()

    def add(self, id: str) -> None:
        """Remember `id`."""
        self._new.add(_key(id))
        if len(self._new) >= self._half:
            self._old, self._new = self._new, set()

    def __contains__(self, id: str) -> bool:
        key = _key(id)
        return key in self._new or key in self._old

    def __len__(self) -> int:
        return len(self._new | self._old)
