"""The life cycle of a part: a process that a supervisor, a container engine or a person starts and stops.

    starting ──ready()──▶ ready ──SIGTERM / SIGINT──▶ stopping ──▶ exit 0
        └────────────────────┴────── exception ──────▶ logged, exit 1     (a UponError: exit 2, one line)

A part's `main(part, settings)` calls `part.ready(...)` once it can do its work and returns soon after
`part.stopping` is set. The supervisor learns of readiness through the file descriptor in UPON_READY_FD:
one JSON line with what the part wants known. Not here: restarts (the supervisor's) and daemonizing.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from upon.config import Settings
from upon.errors import UponError
from upon.logs import configure, get_logger

READY_FD = "UPON_READY_FD"
log = get_logger(__name__)


class Part:
    """What a running part has of its own process.

    Attributes:
        name: such as ``dispatcher``.
        stopping: set when the part shall stop.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = asyncio.Event()

    def ready(self, **info: Any) -> None:
        """Tell the supervisor, if there is one, that the part does its work; `info` must be JSON."""
        log.info("ready", action="ready", pid=os.getpid(), **info)
        descriptor = os.environ.pop(READY_FD, None)
        if descriptor is None:
            return
        with os.fdopen(int(descriptor), "w") as pipe:
            pipe.write(json.dumps({"part": self.name, "pid": os.getpid(), **info}) + "\n")


Main = Callable[[Part, Settings], Awaitable[None]]


def run_part(name: str, settings: Settings, main: Main) -> int:
    """Run a part until it is told to stop; return the exit code (0 stopped, 1 bug, 2 an error of the tree)."""
    configure(name, settings.log_level)
    try:
        asyncio.run(_run(name, settings, main))
    except UponError as error:
        log.error(str(error), action="stop", error=type(error).__name__)
        return 2
    except Exception:
        log.exception("stopped by an unexpected error", action="stop")
        return 1
    return 0


async def _run(name: str, settings: Settings, main: Main) -> None:
    part = Part(name)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, part.stopping.set)
    await main(part, settings)
    log.info("stopped", action="stop")
