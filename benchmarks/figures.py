"""How a figure is computed and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `bound` is what the figure is held against, empty if nothing is."""

    what: str
    value: str
    peer: str = ""
    bound: str = ""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of `values` lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def spread(milliseconds: Sequence[float]) -> str:
    """Return p50 and p99 of latencies."""
    p50, p99 = percentile(milliseconds, 0.5), percentile(milliseconds, 0.99)
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms (n={len(milliseconds)})"
