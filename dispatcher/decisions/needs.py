"""What a task needs beside one slot: more cores, memory, accelerators, and a share of what is limited. Pure.

    plain      nothing: it is queued at managers ahead of its turn, as most tasks are
    shaped     resources: it goes to a manager that has them free now, and begins at once
    limited    names with bounds, such as {"detector": 1}: of all that name it, so many are at managers at a time

A limit counts at one site. Where two tasks give one name different bounds, each keeps its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from upon.messages import Invocation, Resources

PLAIN = Resources()


@dataclass(frozen=True, slots=True)
class Needs:
    """What each task of a lane needs.

    Attributes:
        resources: slots (one for each core), bytes of memory, accelerators.
        limits: names, each with how many tasks may be at managers that name it.
    """

    resources: Resources
    limits: tuple[tuple[str, int], ...] = ()

    @property
    def shaped(self) -> bool:
        """Whether it takes more than any slot."""
        return self.resources != PLAIN


def needs_of(invocation: Invocation) -> Needs | None:
    """Return what an invocation needs; None: one slot."""
    resources = invocation.resources
    if resources is None or resources == PLAIN:
        if not invocation.limits:
            return None
        resources = PLAIN
    return Needs(resources, tuple(sorted(invocation.limits.items())))


class Limits:
    """How much of each name is in use."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()

    def room(self, limits: Iterable[tuple[str, int]], wanted: int) -> tuple[int, str]:
        """Return how many tasks with these limits may go now, and, if none, the name that is used up."""
        for name, most in limits:
            wanted = min(wanted, most - self.used[name])
            if wanted <= 0:
                return 0, name
        return wanted, ""

    def take(self, limits: Iterable[tuple[str, int]]) -> None:
        """A task with these limits is at a manager."""
        for name, _ in limits:
            self.used[name] += 1

    def give(self, limits: Iterable[tuple[str, int]]) -> None:
        """One is there no more."""
        for name, _ in limits:
            self.used[name] -= 1
            if not self.used[name]:
                del self.used[name]
