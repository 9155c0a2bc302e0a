"""Processes that outlived their supervisor: found by their command lines, stopped before others start.

A broker is known by its settings file, a part by its home, and both carry the process that started them: one whose
supervisor lives is not left over, and neither is a part that somebody runs by hand. No pid file: one would survive a
crash and then name a process that has nothing to do with us.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from upon.part import SUPERVISOR
from upon.processes import alive, myself

MAIN = "kafka.Kafka"
PARENT = "-Dupon.parent="
GRACE = 3.0
"""Seconds that a left-over part has after SIGTERM."""
KAFKA_GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """A process of a system: which part it is, and whether its supervisor lives (None: it was started by hand)."""

    name: str
    process: psutil.Process
    supervised: bool | None


def parent_flag() -> str:
    """Return the JVM flag that says which process the broker belongs to: this one."""
    return PARENT + myself()


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
        flags = [argument for argument in broker.cmdline() if argument.startswith(PARENT)]
    except psutil.Error:
        return None
    return alive(flags[0].removeprefix(PARENT)) if flags else None


def part_of(command: list[str], home: Path) -> str:
    """Return which part of this home a command line runs, empty if none: `… -m upon part NAME --home HOME`."""
    tail = command[-6:]
    is_part = len(tail) == 6 and tail[:3] == ["-m", "upon", "part"] and tail[4:] == ["--home", str(home)]
    return tail[3] if is_part else ""


def system(home: Path, properties: Path) -> list[Found]:
    """Return every process that runs for a home now: its parts, and the broker with this settings file."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if name := part_of(line, home):
            found.append(Found(name, process, _supervised(process)))
        elif line and line[-1] == str(properties) and MAIN in line:
            found.append(Found("kafka", process, owner(process) is not None))
    return found


def stop_all(found: Iterable[Found]) -> list[Found]:
    """Stop those whose supervisor is gone, parts before Kafka; return them once they have ended."""
    left = [one for one in found if one.supervised is False]
    parts, kafka = [one for one in left if one.name != "kafka"], [one for one in left if one.name == "kafka"]
    for group, grace in ((parts, GRACE), (kafka, KAFKA_GRACE)):
        for one in group:
            with contextlib.suppress(psutil.Error):
                one.process.terminate()
        psutil.wait_procs([one.process for one in group], timeout=grace)
        for one in group:  # each was started as the leader of a group: what it started goes with it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(one.process.pid, signal.SIGKILL)
        psutil.wait_procs([one.process for one in group], timeout=30)
    return left


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


def _supervised(part: psutil.Process) -> bool | None:
    try:
        name = part.environ().get(SUPERVISOR)
    except psutil.Error:
        return None
    return None if name is None else alive(name) is not None
