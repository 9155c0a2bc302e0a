"""What runs in a home: one supervisor at a time (a lock), and the file `upon status` and `upon down` read.

The file says what the supervisor did last; whether it is still so is looked at (`health`), for a full disk or a kill
may have kept the supervisor from writing.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from upon.config import Home, write_private
from upon.errors import Conflict
from upon.machine import PRIVATE


@dataclass(slots=True)
class PartState:
    """One part: `state` is starting, up, down (about to be restarted), failed (does not start; tried now and then) or
    stopped. `reason`: why it ended last, or does not start; empty once it is up."""

    state: str = "stopped"
    pids: list[int] = field(default_factory=list)
    restarts: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(slots=True)
class SystemState:
    """A system as its supervisor last wrote it."""

    pid: int
    started: float  # of the supervisor process, s since the epoch, to tell it from a later owner of its pid
    kafka: str
    service: str
    site: str
    ready: bool = False
    parts: dict[str, PartState] = field(default_factory=dict)

    def write(self, home: Home) -> None:
        """Replace the state file.

        Raises:
            OSError: it cannot be written; the one that was there stands.
        """
        home.run.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        write_private(_path(home), json.dumps(asdict(self), indent=2) + "\n")

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs. One that nobody has waited for yet does not."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 2 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def _path(home: Home) -> Path:
    return home.run / "state.json"


def read_state(home: Home) -> SystemState | None:
    """Return the state of the system that runs in this home; None if none does."""
    try:
        raw = json.loads(_path(home).read_text())
        raw["parts"] = {name: PartState(**part) for name, part in raw["parts"].items()}
        state = SystemState(**raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return state if state.alive else None


class Lock:
    """Held by the supervisor for as long as it lives; the kernel gives it back however it ends."""

    def __init__(self, home: Home) -> None:
        home.run.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        self._descriptor = os.open(home.run / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise Conflict(
                f"a system runs in {home.path} already; `upon status` shows it, `upon down` stops it, "
                "`--home DIR` starts another beside it"
            ) from error

    def release(self) -> None:
        os.close(self._descriptor)
