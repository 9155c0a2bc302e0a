"""How much memory a task takes: its worker's and that of all processes below it, shared pages in shares.

On Linux, from /proc (proc(5): smaps_rollup, "proportional set size"). Elsewhere nothing is known, and nothing bounded.
"""

from __future__ import annotations

import contextlib


def used(pid: int) -> int:
    """Return the bytes that a process and its descendants take; 0 if it is gone, or the system does not tell."""
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        with contextlib.suppress(OSError):
            total += _share(one)
            with open(f"/proc/{one}/task/{one}/children") as file:
                todo += map(int, file.read().split())
    return total


def _share(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
