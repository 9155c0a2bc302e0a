"""Which records must be judged again, because the worker did not know yet what had changed before Kafka had them.

A worker judges a record by the changes (activations) that it has read. One that Kafka had before the record may still
be under way to it. So each record is held, its position not committed, until the registry is known to be read as far
as it reached after the record was judged; changes that came in meanwhile and are not later than it are made good.

    registry     #7 at 10:00:01.2 ─────────────────▶ taken in late
    events       record at 10:00:01.3 ─▶ judged, with changes up to #6 ─▶ held ─▶ again, for the rules of #7

Pure: no clock, no Kafka. Guarantee: a record that leaves without rules to judge again was judged by every change that
is not later. Records themselves are not kept: Kafka has them. Not here: asking how far the registry reaches
(`upon.streams.agents`), what a rule does (`upon.streams.reactions`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from upon.moments import Moment, Since

Work = TypeVar("Work")


@dataclass(frozen=True, slots=True)
class Judged(Generic[Work]):
    """A record that is held.

    Attributes:
        moment: when Kafka had it.
        number: of the newest activations that it was judged by.
    """

    work: Work
    moment: Moment
    number: int


@dataclass(frozen=True, slots=True)
class Change:
    """What activations change from a moment on."""

    number: int
    since: Since
    rules: frozenset[str]


@dataclass(frozen=True, slots=True)
class Again(Generic[Work]):
    """A record that leaves, and the rules, if any, for which it must be judged again."""

    work: Work
    changes: tuple[Change, ...]

    def __contains__(self, rule: str) -> bool:
        return any(rule in one.rules for one in self.changes)


class Barrier(Generic[Work]):
    """The records that are held, in the order in which they were judged, and the changes since the first of them."""

    def __init__(self) -> None:
        self._held: deque[Judged[Work]] = deque()
        self._left = 0  # records that were held before
        self._changes: deque[Change] = deque()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def mark(self) -> int:
        """What `release` takes to let go of all that is held now, and of nothing that comes later."""
        return self._left + len(self._held)

    def judged(self, work: Work, moment: Moment, number: int) -> None:
        """Hold a record that was judged by all activations up to `number`."""
        self._held.append(Judged(work, moment, number))

    def changed(self, number: int, since: Since, rules: Iterable[str]) -> None:
        """Take in that activations change rules `since` a moment."""
        if self._held:
            self._changes.append(Change(number, since, frozenset(rules)))

    def release(self, mark: int) -> list[Again[Work]]:
        """Let go of what was held at `mark`: the registry has been read as far as it reached after that."""
        gone = []
        while self._left < mark and self._held:
            one = self._held.popleft()
            self._left += 1
            gone.append(
                Again(
                    one.work,
                    tuple(c for c in self._changes if c.number > one.number and c.since.is_before(one.moment)),
                )
            )
        while self._changes and (not self._held or self._changes[0].number <= self._held[0].number):
            self._changes.popleft()
        return gone
