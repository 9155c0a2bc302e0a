"""What all parts cost while nothing happens."""

from __future__ import annotations

import time

import psutil

from benchmarks.system import System

SECONDS = 20.0


def measure(system: System) -> tuple[dict[str, tuple[float, float]], float, float]:
    """Return CPU (% of one core) and memory (MB, proportional where known) by part, and both sums."""
    by_part = {
        name: [psutil.Process(pid) for pid in part["pids"] if psutil.pid_exists(pid)]
        for name, part in system.status()["parts"].items()
    }
    workers = {p.pid for p in by_part["workers"]}
    parents = [c for m in by_part["manager"] for c in m.children(recursive=True) if c.pid not in workers]
    by_part["manager"] += parents
    before = {name: sum(map(_cpu, processes)) for name, processes in by_part.items()}
    time.sleep(SECONDS)
    costs = {
        name: ((sum(map(_cpu, processes)) - before[name]) / SECONDS * 100, sum(map(_memory, processes)))
        for name, processes in by_part.items()
    }
    return costs, sum(c for c, _ in costs.values()), sum(m for _, m in costs.values())


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _memory(process: psutil.Process) -> float:
    info = process.memory_full_info()
    return float(getattr(info, "pss", info.rss)) / 1e6
