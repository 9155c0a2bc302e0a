"""Placement: which manager gets which ready task. A strategy object, so that another can take its place.

`Spread`, the one there is: free workers first, those that have the code before those that have not; then a small
prefetch, so that no worker waits for a round trip. How deep that is follows from how long the function took:
`PREFETCH` per slot for a long one, for a short one as many as fill `HORIZON` seconds.

    room of a manager = slots * (1 + prefetch) - what it holds

Not here: data locality, environments, fair shares between principals.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Protocol

from upon.dispatcher.tasks import Task

PREFETCH = 1
"""Tasks per slot that wait at a manager, at least."""
HORIZON = 0.02
"""Seconds of work that wait at a manager when tasks are short."""
MAX_PREFETCH = 64
"""Tasks per slot that wait at a manager, at most."""


@dataclass(slots=True, eq=False)
class Manager:
    """A manager as the dispatcher sees it."""

    id: str
    host: str
    pid: int
    workers: tuple[int, ...]
    slots: int
    python: str
    warm: set[str]  # hashes of the code it has
    heard: float  # monotonic s
    busy: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)  # what it holds


Share = tuple[Manager, list[Task]]


class Placement(Protocol):
    """Decides who gets what. Pure apart from what it has observed."""

    def place(self, ready: Iterable[Task], managers: Iterable[Manager]) -> list[Share]:
        """Return tasks from the front of `ready` by manager, in the order in which they are to run.

        Reads no further than the first that finds no room. Nothing is changed: the caller assigns.
        """

    def observe(self, code: str, seconds: float) -> None:
        """Take in how long a call of this function took."""


class Spread:
    """Free slots first, warm code first, evenly; then a prefetch.

    Args:
        prefetch: tasks per slot that wait at a manager, at least.
        horizon: s of work that wait there when tasks are short.
    """

    def __init__(self, prefetch: int = PREFETCH, horizon: float = HORIZON) -> None:
        self._prefetch, self._horizon = prefetch, horizon
        self._seconds: dict[str, float] = {}

    def observe(self, code: str, seconds: float) -> None:
        known = self._seconds.get(code, seconds)
        # A longer call counts at once: work queued behind it would wait while other managers are idle.
        self._seconds[code] = seconds if seconds > known else known * 0.9 + seconds * 0.1

    def prefetch(self, code: str) -> int:
        """Return how many tasks of this function may wait per slot."""
        seconds = self._seconds.get(code)
        if seconds is None:
            return self._prefetch
        fitting = int(self._horizon / seconds) if seconds > 0 else MAX_PREFETCH
        return max(self._prefetch, min(fitting, MAX_PREFETCH))

    def place(self, ready: Iterable[Task], managers: Iterable[Manager]) -> list[Share]:
        managers = list(managers)
        held = {m.id: len(m.tasks) for m in managers}
        shares: dict[str, Share] = {}
        for code, run in groupby(ready, key=lambda task: task.invocation.code):
            deep = 1 + self.prefetch(code)
            room = sum(max(0, m.slots * deep - held[m.id]) for m in managers)
            tasks = list(islice(run, room + 1))  # one more than fits tells whether to go on
            warm = [m for m in managers if code in m.warm]
            cold = [m for m in managers if code not in m.warm]
            placed = 0
            for depth in (1, deep):
                for group in (warm, cold):
                    placed += _fill(tasks[placed:room], group, depth, held, shares)
            if len(tasks) > room:
                break
        return list(shares.values())


def _fill(
    tasks: list[Task], managers: list[Manager], depth: int, held: dict[str, int], shares: dict[str, Share]
) -> int:
    """Share out `tasks` evenly, the emptiest first, until each manager holds `depth` per slot; return how many."""
    at = 0
    while at < len(tasks):
        emptiest = sorted((m for m in managers if held[m.id] < m.slots * depth), key=lambda m: held[m.id] / m.slots)
        if not emptiest:
            break
        share = -(-(len(tasks) - at) // len(emptiest))
        for manager in emptiest:
            part = tasks[at : at + min(share, manager.slots * depth - held[manager.id])]
            if part:
                shares.setdefault(manager.id, (manager, []))[1].extend(part)
                held[manager.id] += len(part)
                at += len(part)
    return at
