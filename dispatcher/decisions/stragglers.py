"""Which tasks run far beyond their function's usual time. Pure.

    a call that succeeded ─▶ observe ─▶ the newest `KEPT` times of its function ─▶ usual: what nine of ten take at most
    a task that runs for more than `FAR` times the usual, and `LEAST` s ─▶ a straggler

It is told to people and nothing is done about it: a timeout does that (`Invocation.timeout`, `UPON_TASK_TIMEOUT`).
A map chunk counts by its items.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

from upon.dispatcher.decisions.capacity import Manager
from upon.dispatcher.decisions.tasks import Task
from upon.messages import Straggler

KEPT = 64
"""Times kept of each function."""
ENOUGH = 5
"""Calls of a function after which is said what is usual."""
FUNCTIONS = 10_000
"""Functions whose times are kept; the one not run for the longest time goes first."""
FAR = 10.0
"""A straggler runs for so many times its function's usual time …"""
LEAST = 30.0
"""… and for so many seconds."""
NAMED = 20
"""Stragglers that are named, at most: those that run the longest."""


class UsualTimes:
    """How long functions take, by the hash of their code."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def observe(self, code: str, seconds: Iterable[float]) -> None:
        """Take in how long calls took."""
        times = self._times.get(code)
        if times is None:
            times = self._times[code] = deque(maxlen=KEPT)
            if len(self._times) > FUNCTIONS:
                self._times.popitem(last=False)
        else:
            self._times.move_to_end(code)
        times.extend(seconds)

    def usual(self, code: str, items: int = 0) -> float | None:
        """Return the s that nine of ten calls (of a chunk of so many) take at most; None: not enough is known."""
        times = self._times.get(code)
        if times is None or len(times) < ENOUGH:
            return None
        return sorted(times)[int(0.9 * (len(times) - 1))] * max(1, items)


def stragglers(managers: Iterable[Manager], usual: UsualTimes, mono: float) -> tuple[Straggler, ...]:
    """Return the stragglers among what runs, the longest first.

    Args:
        mono: now, monotonic s.
    """
    found: list[tuple[float, float, Task]] = []
    for manager in managers:
        for task in manager.tasks.values():
            if task.state != "running" or (ran := mono - task.since) < LEAST:
                continue
            times = usual.usual(task.invocation.code, task.invocation.items)
            if times is not None and ran > FAR * times:
                found.append((ran, times, task))
    found.sort(key=lambda one: -one[0])
    return tuple(
        Straggler(
            id=task.id,
            function=task.invocation.function,
            worker=f"{task.manager}/{task.pid}",
            started=task.started,
            ran=round(ran, 3),
            usual=times,
        )
        for ran, times, task in found[:NAMED]
    )
