"""What a manager's pool costs: CPU time of a no-op through it, by the number of workers.

    python -m benchmarks.pool

No processes: events and instructions alone. Workers take their tasks in turn, and say at once that one is done and
the next has begun. *Many*: batches of so many tasks that all workers have some ahead. *Few*: one task after the
other, while half of the workers run a long one. Medians of five runs.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from rich.console import Console

from benchmarks.machine import describe
from upon.dispatcher.protocol import Assignment
from upon.endpoint.channel import Began, Code, Done, FromWorker, Up
from upon.endpoint.decisions.instructions import Give, Instruction, Reclaim
from upon.endpoint.decisions.pool import Pool

TASKS = 20_000
BATCH = 500
RUNS = 5
console = Console(highlight=False, width=120)


class Manager:
    """A pool, and workers that do at once what they are given. Attribute `took`: CPU s that the pool had."""

    def __init__(self, workers: int) -> None:
        self.pool, self.took = Pool(workers), 0.0
        self.tokens: dict[int, deque[int]] = {}
        self.runs: dict[int, int] = {}
        self.begun: deque[int] = deque()  # workers that have a token and do nothing yet
        self.ended = 0
        self.pool.start()
        for number in list(self.pool.workers):
            self.tokens[number] = deque()
            self.pool.heard(number, [Up(number)], time.monotonic())
        self.pool.code(Code("c", b""), time.monotonic())

    def event(self, ask: Callable[[], list[Instruction]]) -> None:
        """Let the pool decide, and do what it says."""
        began = time.thread_time()
        out = ask()
        self.took += time.thread_time() - began
        for one in out:
            match one:
                case Give(worker, _, seqs):
                    if seqs and not self.tokens[worker] and worker not in self.runs:
                        self.begun.append(worker)
                    self.tokens[worker].extend(seqs)
                case Reclaim(worker):
                    back = frozenset(self.tokens[worker])
                    self.tokens[worker].clear()
                    self.event(partial(self.pool.reclaimed, worker, back, time.monotonic()))
                case _:
                    self.ended += 1

    def assign(self, first: int, count: int) -> None:
        new = [Assignment(f"t{number}", 1, "c", "noop", b"") for number in range(first, first + count)]
        self.event(lambda: self.pool.assign(new, time.monotonic()))

    def work(self, worker: int) -> None:
        """One worker ends what it runs and begins the next."""
        said: list[FromWorker] = []
        if worker in self.runs:
            said.append(Done(self.runs.pop(worker), 1, 2, b"m"))
        if self.tokens[worker]:
            self.runs[worker] = self.tokens[worker].popleft()
            said.append(Began(self.runs[worker], 1))
        if said:
            self.event(lambda: self.pool.heard(worker, said, time.monotonic()))

    def turn(self) -> None:
        waiting = [*self.begun, *self.runs]
        self.begun.clear()
        for worker in waiting:
            self.work(worker)
        if time.monotonic() >= self.pool.wake_at:
            self.event(lambda: self.pool.tick(time.monotonic()))


def many(workers: int) -> float:
    """Return CPU µs of the pool for one no-op of many."""
    manager, sent = Manager(workers), 0
    gc.collect()
    manager.took = 0.0
    while manager.ended < TASKS:
        if sent < TASKS and sent - manager.ended < max(4 * workers, BATCH):
            manager.assign(sent, BATCH)
            sent += BATCH
        manager.turn()
    return manager.took / TASKS * 1e6


def few(workers: int) -> float:
    """Return CPU µs of the pool for one no-op among long tasks."""
    manager, tasks = Manager(workers), TASKS // 10
    manager.assign(0, workers // 2)
    while manager.begun:
        manager.work(manager.begun.popleft())
    manager.ended, manager.took = 0, 0.0
    for number in range(tasks):
        manager.assign(workers + number, 1)
        worker = manager.begun.popleft()
        manager.work(worker)
        manager.work(worker)
    return manager.took / tasks * 1e6


def main() -> None:
    """Measure and print."""
    console.print(describe())
    for workers in (2, 64, 512):
        first = statistics.median(many(workers) for _ in range(RUNS))
        second = statistics.median(few(workers) for _ in range(RUNS))
        console.print(f"{workers:>4} workers: a no-op of many {first:6.1f} µs, one among long tasks {second:6.1f} µs")


if __name__ == "__main__":
    main()
