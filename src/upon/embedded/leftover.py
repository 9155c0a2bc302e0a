"""A broker that outlived its supervisor: found by its command line, stopped before another one starts.

No pid file: one would survive a crash and then name a process that has nothing to do with us.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

MAIN = "kafka.Kafka"
PARENT = "-Dupon.parent="


def parent_flag() -> str:
    """Return the JVM flag that says which process (id and start time) the broker belongs to: this one."""
    return f"{PARENT}{os.getpid()}:{psutil.Process().create_time():.2f}"


def running(properties: Path) -> psutil.Process | None:
    """Return the broker that runs with this settings file, or None."""
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if line and line[-1] == str(properties) and MAIN in line:
            return process
    return None


def owner(broker: psutil.Process) -> psutil.Process | None:
    """Return the process that a broker belongs to, if it still runs."""
    try:
        for argument in broker.cmdline():
            if argument.startswith(PARENT):
                pid, _, created = argument.removeprefix(PARENT).partition(":")
                parent = psutil.Process(int(pid))
                same = abs(parent.create_time() - float(created)) < 1.0
                return parent if same and parent.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, ValueError):
        pass
    return None


def stop(process: psutil.Process, timeout: float) -> None:
    """Stop a process and wait until it is gone: SIGTERM, and SIGKILL after `timeout` s."""
    try:
        process.terminate()
        process.wait(timeout)
    except psutil.TimeoutExpired:
        kill(process)
    except psutil.NoSuchProcess:
        pass


def kill(process: psutil.Process) -> None:
    """End a process with SIGKILL and wait until it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
        process.wait(30)
