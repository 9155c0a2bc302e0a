"""What is known of a site's past: the ids whose results are in Kafka, and how often the others have begun. Pure.

What comes again is not done again. Ids are kept in two generations: when the younger is full the older is dropped, so
at least `limit / 2` of the newest are known. A UUID is kept as its 128-bit number (about 90 bytes an id, all in all).
Results are read without their payloads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from upon.errors import InputError
from upon.messages import FORMAT, decode

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


class _Ended(Struct):
    id: str


class _Begun(Struct):
    id: str
    attempt: int = 1


class _Batch(Struct):
    """`ResultBatch` as far as it is needed here; msgspec passes over the rest without building it."""

    site: str
    results: tuple[_Ended, ...] = ()
    started: tuple[_Begun, ...] = ()
    format: int = FORMAT


@dataclass(slots=True)
class Past:
    """What is known of a site's work, from a time on.

    Attributes:
        since: ns since the epoch, the broker's clock: all that was written later is known.
        done: ids that have a result.
        starts: of those that have none: which of their attempts has begun last, if any.
    """

    since: int = 0
    done: DoneIds = field(default_factory=DoneIds)
    starts: dict[str, int] = field(default_factory=dict)

    def take(self, value: bytes, site: str) -> None:
        """Take in a results record; one of another site, or that cannot be read, says nothing."""
        try:
            batch = decode(value, _Batch)
        except InputError:
            return
        if batch.site != site:
            return
        for begun in batch.started:
            if begun.id not in self.done:
                self.starts[begun.id] = max(begun.attempt, self.starts.get(begun.id, 0))
        for ended in batch.results:
            self.done.add(ended.id)
            self.starts.pop(ended.id, None)
