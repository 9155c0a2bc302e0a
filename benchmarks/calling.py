"""Functions called by hand: round trip, no-ops per second, map items per second; a process pool beside it."""

from __future__ import annotations

import time
from concurrent.futures import Executor as AnyExecutor
from concurrent.futures import wait

ROUND_TRIPS = 300
SUBMITS = 5_000
ITEMS = 1_000_000
CHUNKS = (10_000, 20_000, 50_000)
"""Chunk sizes tried for the map; the best counts."""


def noop(value: int = 0) -> int:
    """Return what comes in: all that is measured is the way."""
    return value


def round_trips(executor: AnyExecutor) -> list[float]:
    """Return ms from submit to result, one call at a time."""
    executor.submit(noop, 0).result()
    times = []
    for number in range(ROUND_TRIPS):
        began = time.perf_counter()
        executor.submit(noop, number).result()
        times.append((time.perf_counter() - began) * 1000)
    return times


def tasks_per_second(executor: AnyExecutor) -> float:
    """Return no-op tasks per second over `SUBMITS` individual submits."""
    began = time.perf_counter()
    futures = [executor.submit(noop, number) for number in range(SUBMITS)]
    wait(futures)
    took = time.perf_counter() - began
    assert [future.result() for future in futures] == list(range(SUBMITS))
    return SUBMITS / took


def items_per_second(executor: AnyExecutor) -> tuple[float, int]:
    """Return items per second of a map over `ITEMS`, and the chunk size that gave it."""
    best = (0.0, 0)
    for chunk in CHUNKS:
        began = time.perf_counter()
        total = sum(executor.map(noop, range(ITEMS), chunksize=chunk))
        took = time.perf_counter() - began
        assert total == ITEMS * (ITEMS - 1) // 2
        best = max(best, (ITEMS / took, chunk))
    return best
