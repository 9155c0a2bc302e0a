"""What all parts cost while nothing happens."""

from __future__ import annotations

import time

import psutil

from benchmarks.system import System, cpu_of

SECONDS = 20.0


def measure(system: System) -> tuple[dict[str, tuple[float, float]], float, float]:
    """Return CPU (% of one core) and memory (MB, proportional where known) by part, and both sums."""
    by_part = system.processes()
    before = {name: sum(map(cpu_of, processes)) for name, processes in by_part.items()}
    time.sleep(SECONDS)
    costs = {
        name: ((sum(map(cpu_of, processes)) - before[name]) / SECONDS * 100, sum(map(_memory, processes)))
        for name, processes in by_part.items()
    }
    return costs, sum(c for c, _ in costs.values()), sum(m for _, m in costs.values())


def _memory(process: psutil.Process) -> float:
    info = process.memory_full_info()
    return float(getattr(info, "pss", info.rss)) / 1e6
