"""`upon restart PART`: stop one part and let its supervisor start it anew."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

STOPS = 10.0
"""Seconds that a part has to stop, before it is killed."""
STARTS = 60.0


def restart(
    part: Annotated[str, typer.Argument(help="kafka, service, streams, dispatcher, manager or sources")],
    home: Annotated[Path | None, typer.Option(help="the folder of this system (default: UPON_HOME)")] = None,
) -> None:
    """Restart one part of the running system, and wait until it is up again. Nothing is lost.

    A restarted manager starts its running tasks again. What the environment says is read at `upon up`, not here;
    a sources file is read anew.

    Example: upon restart sources
    """
    from upon.config import Home
    from upon.embedded.state import read_state
    from upon.errors import Conflict, InputError, PartFailed

    place = Home(home)
    state = read_state(place)
    if state is None:
        raise Conflict(f"nothing runs in {place.path}; start it with `upon up`")
    if part not in state.parts:
        raise InputError(f"no part {part!r} runs here: name one of {', '.join(state.parts)}")
    before = state.parts[part]
    for pid in before.pids:
        _end(pid)
    deadline = time.monotonic() + STARTS
    while time.monotonic() < deadline:
        now = read_state(place)
        if now is None:
            raise PartFailed("the system has ended meanwhile; see `upon logs up`")
        found = now.parts[part]
        if found.restarts > before.restarts or (found.pids and found.pids != before.pids):
            if found.state == "up":
                typer.echo(f"{part} is up again, pid {' '.join(map(str, found.pids))}")
                return
            if found.state == "failed":
                raise PartFailed(f"{part} does not start: {found.reason}")
        time.sleep(0.05)
    raise PartFailed(f"{part} is not up after {STARTS:.0f} s; see `upon status` and `upon logs {part}`")


def _end(pid: int) -> None:
    import psutil

    try:
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGTERM)
        process.wait(STOPS)
    except psutil.TimeoutExpired:
        process.kill()
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass
