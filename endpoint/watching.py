"""What a manager looks at while tasks run: how much they have printed, and take of memory. Nothing while all are quick.

    a task takes its time      each `OUTPUT` s: its output is cut back, and now and then what is new of it is said
    a task's memory is bounded each `MEMORY` s: what it takes

Not here: what is said of the output (`upon.endpoint.printing`), what becomes of a task that takes too much (`pool`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from upon.dispatcher import protocol
from upon.endpoint import memory
from upon.endpoint.decisions import worker_record
from upon.endpoint.decisions.pool import Pool
from upon.endpoint.printing import Printing
from upon.endpoint.workers import Workers

MEMORY = 0.1
"""Seconds between two looks at how much memory those tasks take that may not take all."""
OUTPUT = 0.05
"""Seconds between two looks at how much the tasks that run have printed."""


class Watching:
    """The looks, from the moment that there is something to look at.

    Args:
        pool: knows what runs.
        workers: where that can be looked at.
        attempt: (id, attempt) → the number under which the dispatcher knows that attempt now.
        say: takes what is new of the output.
        exceeded: (worker, bytes) takes who takes more memory than it may.
    """

    def __init__(
        self,
        pool: Pool,
        workers: Workers,
        *,
        attempt: Callable[[str, int], int],
        say: Callable[[tuple[protocol.Piece, ...]], None],
        exceeded: Callable[[int, int], None],
    ) -> None:
        self._pool, self._workers, self._attempt, self._say, self._exceeded = pool, workers, attempt, say, exceeded
        self._loop = asyncio.get_running_loop()
        self._printing = Printing()
        self._output: asyncio.TimerHandle | None = None
        self._memory: asyncio.TimerHandle | None = None

    def output(self) -> None:
        """A task takes its time: see that what it prints has an end, and show it."""
        if self._output is None:
            self._output = self._loop.call_later(OUTPUT, self._look_at_output)

    def memory(self) -> None:
        """A task was given out: if there are some whose memory is bounded, see that they keep to it."""
        if self._memory is None and self._pool.leases.any:
            self._memory = self._loop.call_later(MEMORY, self._look_at_memory)

    def close(self) -> None:
        """Look no more."""
        for alarm in (self._output, self._memory):
            if alarm is not None:
                alarm.cancel()

    def _look_at_output(self) -> None:
        self._output = None
        slow = [worker for worker in self._pool.workers.values() if worker.told]
        self._workers.cut_output(worker.number for worker in slow)
        if pieces := self._printing.pieces(slow, self._workers.printed, self._attempt, self._loop.time()):
            self._say(pieces)
        if slow:
            self.output()

    def _look_at_memory(self) -> None:
        self._memory = None
        for number, pid, limit in worker_record.bounded(self._pool.workers.values()):
            if (taken := memory.used(pid)) > limit:
                self._exceeded(number, taken)
        self.memory()
