"""Large arguments and results: MB/s there, there and back, and many at once; the memory that each process takes for it.

    python -m benchmarks.payloads

A system of its own, and a process pool in the same run; numpy arrays of random bytes. A figure is the best of some runs
(the disk and others on the machine have their say in the rest); memory is the highest peak of any run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor as AnyExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from benchmarks.system import System, running_system
from benchmarks.watchdog_script import process_pool
from upon import Executor

SIZES = {"1 MB": 10**6, "16 MB": 16 * 10**6, "256 MB": 256 * 10**6, "1 GB": 10**9}
RUNS = {"1 MB": 50, "16 MB": 10, "256 MB": 3, "1 GB": 3}
TOGETHER = 64 * 10**6
"""Bytes of the arrays that are under way at once, where one has less."""
PARTS = ("workers", "manager", "dispatcher", "service", "streams", "kafka")
console = Console(highlight=False, width=140)


@dataclass(slots=True)
class Measured:
    """Of one size: MB/s of a call that takes an array, of one that also returns it (both ways counted), and one way of
    those again, `at_once` submitted together.

    `grown`: MB by which a process grew at most, by part.
    """

    there: float = 0.0
    there_and_back: float = 0.0
    many: float = 0.0
    at_once: int = 1
    grown: dict[str, float] = field(default_factory=dict)


def length(array: Any) -> int:
    """Take an array."""
    return int(array.nbytes)


def itself(array: Any) -> Any:
    """Take an array, and return it."""
    return array


def measure(executor: AnyExecutor, size: int, runs: int, system: System | None = None) -> Measured:
    """Return what calls with arrays of `size` bytes take."""
    array = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    executor.submit(length, array[:10]).result()
    found = Measured()
    processes = _processes(system)
    before = {process: _restart_peak(process) for some in processes.values() for process in some}
    found.there = size / _best(lambda: executor.submit(length, array).result(), runs) / 1e6
    found.there_and_back = 2 * size / _best(lambda: executor.submit(itself, array).result(), runs) / 1e6
    found.at_once = max(1, TOGETHER // size)
    found.many = found.at_once * size / _best(lambda: _together(executor, array, found.at_once), 3) / 1e6
    for part, some in processes.items():
        found.grown[part] = max((_peak(one) - before[one] for one in some), default=0.0)
    return found


def _together(executor: AnyExecutor, array: Any, count: int) -> None:
    for future in [executor.submit(itself, array) for _ in range(count)]:
        future.result()


def _best(call: Callable[[], Any], runs: int) -> float:
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def _processes(system: System | None) -> dict[str, list[psutil.Process]]:
    here = {"client": [psutil.Process()]}
    if system is None:
        return here | {"workers": psutil.Process().children(recursive=True)}
    return here | {part: system.processes()[part] for part in PARTS}


def _restart_peak(process: psutil.Process) -> float:
    """Let a process's peak be what it uses now; return that, MB."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return _peak(process)


def _peak(process: psutil.Process) -> float:
    """Return the most memory that a process has had, MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def table(figures: Iterable[tuple[str, Measured, Measured]]) -> Table:
    """Return the figures as a table."""
    ways = "there, there and back, many at once"
    shown = Table("array", f"Upon: {ways}", "process pool", "memory taken, MB", box=None, pad_edge=False)
    for size, ours, pool in figures:
        grown = ", ".join(f"{part} {more:.0f}" for part, more in ours.grown.items())
        theirs = ", ".join(f"{part} {more:.0f}" for part, more in pool.grown.items())
        shown.add_row(
            size,
            f"{ours.there:,.0f}, {ours.there_and_back:,.0f}, {ours.many:,.0f} MB/s",
            f"{pool.there:,.0f}, {pool.there_and_back:,.0f}, {pool.many:,.0f} MB/s",
            f"{grown}; pool: {theirs}",
        )
    return shown


def main() -> None:
    """Measure and print."""
    console.print(describe())
    with process_pool() as pool:
        theirs = {size: measure(pool, count, RUNS[size]) for size, count in SIZES.items()}
    with running_system() as system, Executor(home=system.home) as executor:
        ours = {size: measure(executor, count, RUNS[size], system) for size, count in SIZES.items()}
    console.print(table((size, ours[size], theirs[size]) for size in SIZES))


if __name__ == "__main__":
    main()
