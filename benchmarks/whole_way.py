"""What a no-op costs on its whole way, client → service → Kafka → dispatcher → manager → worker: CPU of each process.

    python -m benchmarks.whole_way

A system of its own; bursts of single submits by one Executor, the results waited for and compared. A process's CPU time
is that of all its threads, user and system. The rest of a burst's time on two cores is idle, or somebody else's.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import wait
from dataclasses import dataclass

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.calling import noop
from benchmarks.machine import describe
from benchmarks.system import System, cpu_of, running_system
from upon import Executor

BURST = 30_000
RUNS = 3
PARTS = ("service", "dispatcher", "manager", "workers", "kafka")
console = Console(highlight=False, width=140)


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst: CPU µs of a no-op by part, and no-ops per second."""

    costs: dict[str, float]
    rate: float


def measure(system: System, burst: int = BURST, runs: int = RUNS) -> Burst:
    """Return the medians of `runs` bursts, after one that warms up."""
    with Executor(home=system.home) as executor:
        _burst(executor, system, burst // 3)
        bursts = [_burst(executor, system, burst) for _ in range(runs)]
    costs = {part: statistics.median(one.costs[part] for one in bursts) for part in bursts[0].costs}
    return Burst(costs, statistics.median(one.rate for one in bursts))


def _burst(executor: Executor, system: System, count: int) -> Burst:
    processes = {"client": [psutil.Process()]} | {part: system.processes()[part] for part in PARTS}
    before = {part: sum(map(cpu_of, some)) for part, some in processes.items()}
    began = time.perf_counter()
    futures = [executor.submit(noop, number) for number in range(count)]
    wait(futures)
    took = time.perf_counter() - began
    # what the way itself does not wait for belongs to it all the same: the task store, commits
    _settled(processes)
    after = {part: sum(map(cpu_of, some)) for part, some in processes.items()}
    assert [future.result() for future in futures] == list(range(count))
    return Burst({part: (after[part] - before[part]) / count * 1e6 for part in processes}, count / took)


def _settled(processes: dict[str, list[psutil.Process]]) -> None:
    """Return when the parts have been nearly idle for half a second."""
    every = [one for some in processes.values() for one in some]
    spent = sum(map(cpu_of, every))
    while True:
        time.sleep(0.5)
        now = sum(map(cpu_of, every))
        if now - spent < 0.1:
            return
        spent = now


def table(burst: Burst) -> Table:
    """Return the figures as a table."""
    shown = Table("CPU of a no-op", "µs", box=None, pad_edge=False)
    shown.columns[1].justify = "right"
    for part, cost in burst.costs.items():
        shown.add_row(part, f"{cost:.0f}")
    shown.add_row("in all", f"{sum(burst.costs.values()):.0f}")
    shown.add_row("no-ops per second", f"{burst.rate:,.0f}")
    return shown


def main() -> None:
    """Measure and print."""
    console.print(describe())
    with running_system() as system:
        console.print(table(measure(system)))


if __name__ == "__main__":
    main()
