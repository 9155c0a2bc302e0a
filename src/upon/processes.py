"""Names of processes: a process id is given again, with its start time it names one process for good."""

from __future__ import annotations

import os

import psutil


def myself() -> str:
    """Return this process as others name it: id and start time."""
    return f"{os.getpid()}:{psutil.Process().create_time():.2f}"


def alive(name: str) -> psutil.Process | None:
    """Return the process of a name that `myself` gave, if it still runs on this host."""
    pid, _, created = name.partition(":")
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(created)) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, ValueError):
        return None
