"""Processes that functions start: seen and ended, however they hide.

A worker, the warm parent and the manager are each a *subreaper*: what loses its parent below them becomes their
child. So who has no child has no descendant either, and who kills and reaps its children until there are none has
ended everything, sessions of their own and double forks included.

On Linux. Elsewhere only the process group of a worker is ended, with the worker.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from functools import cache

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAUSE = 0.001
"""Seconds between two looks at children that are dying."""


def open_children() -> int:
    """Return a descriptor from which this process's children can be read again and again; -1: this system has none."""
    try:
        return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # not Linux, or a kernel without this file
        return -1


def children() -> list[int]:
    """Return the process ids of this process's children; nothing where the system does not tell."""
    descriptor = open_children()
    if descriptor < 0:
        return []
    with open(descriptor) as file:
        return [int(pid) for pid in file.read().split()]


def kill_children(spare: Collection[int] = ()) -> bool:
    """Kill the children that are not to be spared, once; tell whether there were any.

    A zombie counts too: it is for the caller to reap.
    """
    found = [pid for pid in children() if pid not in spare]
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def end_children(patience: float) -> bool:
    """Kill and reap children, and what becomes a child when its parent dies, until there is none.

    Args:
        patience: s after which it is given up.

    Returns:
        Whether there is none.
    """
    deadline = time.monotonic() + patience
    while kill_children():
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def become_subreaper() -> None:
    """Make this process the new parent of whatever loses its parent below it. Not inherited by a fork."""
    if sys.platform.startswith("linux"):
        _prctl()(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def death_signal() -> Callable[[], object]:
    """Return what a child calls, after a fork, to be killed when its parent dies; it does nothing but on Linux."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = _prctl()
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@cache
def _prctl() -> Callable[..., int]:
    import ctypes

    return ctypes.CDLL(None, use_errno=True).prctl  # type: ignore[no-any-return]
