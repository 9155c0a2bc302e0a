"""`upon down`: stop this machine's system."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upon.cli.up import HomeOption

if TYPE_CHECKING:
    from upon.api import Site
    from upon.config import Home
    from upon.embedded.state import SystemState

STOPPED = 10.0
"""Seconds that a supervisor has to stop; it needs 5 at most."""


def down(
    home: HomeOption = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="start nothing more, wait until what runs is done, then stop")
    ] = False,
) -> None:
    """Stop the system of this home, started by `upon up` in any terminal.

    Nothing is lost: what runs is stopped and starts again with the next `upon up`, what waits is queued in Kafka.
    With --drain nothing new is started first, and running tasks end by themselves; Ctrl-C goes on as before.

    Example: upon down --drain
    """
    from upon.config import Home
    from upon.embedded import leftover
    from upon.embedded.broker.folder import BrokerFolder
    from upon.embedded.state import read_state

    place = Home(home)
    state = read_state(place)
    if state is not None:
        if drain:
            _drain(place, state)
        told = remaining(_site(place.path, state))
        _stop(state)
        typer.echo(f"stopped the system in {place.path}")
        if told:
            typer.echo(told)
    left = leftover.stop_all(leftover.system(place.path, BrokerFolder(place.kafka).settings))
    for one in left:
        typer.echo(f"stopped {one.name} (pid {one.process.pid}), left over from a supervisor that was killed")
    if state is None and not left:
        typer.echo(f"nothing runs in {place.path}")


def remaining(site: Site | None) -> str:
    """Return what a stop leaves to be done, for people; empty if nothing."""
    if site is None or not site.running + site.queued:
        return ""
    counts = []
    if site.running:
        counts.append(f"{site.running} running task{'s' * (site.running != 1)} will start again")
    if site.queued:
        counts.append(f"{site.queued} queued task{'s' * (site.queued != 1)} will start")
    return f"{' and '.join(counts)} with the next `upon up`"


def _stop(state: SystemState) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOPPED
        while state.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        if state.alive:
            os.kill(state.pid, signal.SIGKILL)
    while state.alive:
        time.sleep(0.02)


def _drain(home: Home, state: SystemState) -> None:
    """Wait until nothing runs at our site any more."""
    from upon.errors import PartFailed

    said = -1
    try:
        while True:
            _tell_dispatcher(home, state, signal.SIGUSR1)
            site = _site(home.path, state)
            if not state.alive:
                raise PartFailed("the system has ended meanwhile")
            if site is not None and site.draining:
                if not site.running:
                    return
                if said != (said := site.running):
                    typer.echo(f"waiting for {said} running task{'s' * (said != 1)}; Ctrl-C goes on without stopping")
            time.sleep(0.2)
    except KeyboardInterrupt:
        _tell_dispatcher(home, state, signal.SIGUSR2)
        typer.echo("not stopped; tasks are started again", err=True)
        raise typer.Exit(130) from None


def _tell_dispatcher(home: Home, state: SystemState, number: int) -> None:
    from upon.embedded import leftover
    from upon.embedded.broker.folder import BrokerFolder

    for found in leftover.system(home.path, BrokerFolder(home.kafka).settings):
        # only one that is up listens: before, the signal would end it
        if found.name == "dispatcher" and found.supervised and state.parts["dispatcher"].state == "up":
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.process.pid, number)


def _site(home: Path, state: SystemState) -> Site | None:
    """Return what the service says of our site; None if it cannot be asked."""
    from upon.embedded.health import service_answers
    from upon.errors import UponError
    from upon.kafka.answers import is_ready
    from upon.sdk.client import Client

    if not (service_answers(state.service) and is_ready(state.kafka)):
        return None
    with contextlib.suppress(UponError), Client(home=home, service=state.service) as client:
        return next((site for site in client.sites() if site.name == state.site and site.state == "up"), None)
    return None
