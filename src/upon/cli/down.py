"""`upon down`: stop this machine's system."""

from __future__ import annotations

import typer

from upon.cli.up import HomeOption

STOPPED = 10.0
"""Seconds that a supervisor has to stop; it needs 5 at most."""


def down(home: HomeOption = None) -> None:
    """Stop the system of this home, started by `upon up` in any terminal.

    Example: upon down --home /data/upon
    """
    import os
    import signal
    import time

    from upon.config import Home
    from upon.embedded import leftover
    from upon.embedded.folder import BrokerFolder
    from upon.embedded.state import read_state

    place = Home(home)
    state = read_state(place)
    if state is not None:
        os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOPPED
        while state.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        if state.alive:
            os.kill(state.pid, signal.SIGKILL)
            while state.alive:
                time.sleep(0.02)
        typer.echo(f"stopped the system in {place.path}")
    left = leftover.stop_all(leftover.system(place.path, BrokerFolder(place.kafka).settings))
    for one in left:
        typer.echo(f"stopped {one.name} (pid {one.process.pid}), left over from a supervisor that was killed")
    if state is None and not left:
        typer.echo(f"nothing runs in {place.path}")
