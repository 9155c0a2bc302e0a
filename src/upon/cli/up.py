"""`upon up`, `upon down`, `upon status`: a whole system on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from upon.embedded.state import SystemState

HomeOption = Annotated[Path | None, typer.Option("--home", help="the folder of this system (default: UPON_HOME)")]
DETACHED_READY = 120.0
"""Seconds that `upon up --detach` waits for the parts; Kafka's jars may have to be fetched first."""


def up(
    home: HomeOption = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="return when all is up; `upon down` stops it")] = False,
    kafka: Annotated[
        str | None, typer.Option(help="use the broker at HOST:PORT instead of an embedded one", metavar="HOST:PORT")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="worker processes (default: one per core)")] = None,
    sources: Annotated[Path | None, typer.Option(help="YAML file that names event sources to run")] = None,
) -> None:
    """Start everything on this machine: Kafka, service, streams, dispatcher, manager and its workers, sources.

    Ctrl-C stops it. All data is kept in the home folder and is there again at the next start.

    Example: upon up --workers 4 --detach
    """
    from upon.config import Settings

    settings = Settings.load(home, workers=workers, sources=str(sources.resolve()) if sources else None)
    if sources and not sources.is_file():
        from upon.errors import ConfigError

        raise ConfigError(f"--sources {sources}: no such file")
    if detach:
        _up_detached(settings.home, kafka, workers, sources)
    else:
        _up_foreground(settings, kafka or "")


def _up_foreground(settings: Any, kafka: str) -> None:
    import asyncio
    import signal
    import time

    from rich.console import Console

    from upon.embedded.supervisor import Supervisor

    console = Console(stderr=True, highlight=False)
    began = time.monotonic()

    def say(part: str, line: str) -> None:
        console.print(f"[bold]{part:<11}[/]{line}", soft_wrap=True)

    async def run() -> None:
        supervisor = Supervisor(settings, kafka, say)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, supervisor.stopping.set)
        announcer = asyncio.create_task(announce(supervisor))
        try:
            await supervisor.run()
        finally:
            announcer.cancel()

    async def announce(supervisor: Supervisor) -> None:
        await supervisor.all_ready.wait()
        console.print(
            f"[bold green]ready[/] after {time.monotonic() - began:.1f} s, home {settings.home}. "
            "Ctrl-C or `upon down` stops it.",
            soft_wrap=True,
        )

    console.print(f"[bold]{'upon':<11}[/]starting in {settings.home}", soft_wrap=True)
    asyncio.run(run())
    console.print(f"[bold]{'upon':<11}[/]stopped")


def _up_detached(home: Path, kafka: str | None, workers: int | None, sources: Path | None) -> None:
    import subprocess
    import sys
    import time

    from upon.config import Home
    from upon.embedded.state import read_state
    from upon.errors import Conflict, UponError

    place = Home(home)
    if read_state(place):
        raise Conflict(f"a system runs in {home} already; `upon status` shows it, `upon down` stops it")
    argv = [sys.executable, "-m", "upon", "up", "--home", str(home)]
    for option, value in (("--kafka", kafka), ("--workers", workers), ("--sources", sources)):
        argv += [option, str(value)] if value is not None else []
    place.logs.mkdir(parents=True, exist_ok=True)
    output = place.logs / "up.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + DETACHED_READY
    while time.monotonic() < deadline:
        if process.poll() is not None:
            typer.echo(output.read_text(errors="replace").strip(), err=True)
            raise typer.Exit(process.returncode or 1)
        state = read_state(place)
        if state is not None and state.ready:
            typer.echo(f"up: service {state.service}, Kafka {state.kafka}, home {home}. `upon down` stops it.")
            return
        time.sleep(0.05)
    raise UponError(f"not all parts are up after {DETACHED_READY:.0f} s; see `upon status` and {output}")


def down(home: HomeOption = None) -> None:
    """Stop the system of this home, started by `upon up` in any terminal.

    Example: upon down --home /data/upon
    """
    import os
    import signal
    import time

    from upon.config import Home
    from upon.embedded.state import read_state

    place = Home(home)
    state = read_state(place)
    if state is None:
        typer.echo(f"nothing runs in {place.path}")
        return
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while state.alive and time.monotonic() < deadline:
        time.sleep(0.02)
    if state.alive:  # its keeper ends what it leaves behind
        os.kill(state.pid, signal.SIGKILL)
    typer.echo(f"stopped the system in {place.path}")


def status(
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Show each part: up or down, process ids, restarts; lag; workers busy and free. Exit code 1 if not all is up.

    Example: upon status --json
    """
    from upon.config import Home
    from upon.embedded.state import read_state

    place = Home(home)
    state = read_state(place)
    view = _view(place, state)
    if as_json:
        typer.echo(json.dumps(view, indent=2))
    else:
        _print(view)
    if view["state"] != "up":
        raise typer.Exit(1)


def _view(place: Any, state: SystemState | None) -> dict[str, Any]:
    """Return what `upon status --json` prints."""
    from upon.embedded.parts import STATUS_ORDER

    if state is None:
        nothing = {"state": "stopped", "pids": [], "restarts": 0}
        parts: dict[str, Any] = {name: dict(nothing) for name in STATUS_ORDER}
        return {"home": str(place.path), "state": "stopped", "kafka": "", "service": "", "parts": parts}
    found: dict[str, Any] = {
        name: {"state": p.state, "pids": p.pids, "restarts": p.restarts, "info": p.info}
        for name, p in state.parts.items()
    }
    view: dict[str, Any] = {
        "home": str(place.path),
        "state": "up" if state.ready else "starting",
        "pid": state.pid,
        "kafka": state.kafka,
        "service": state.service,
        "site": state.site,
    }
    found["workers"], view["lag"] = _ask_service(place.path, state)
    found.setdefault("kafka", {"state": "external", "pids": [], "restarts": 0})
    view["parts"] = {name: found[name] for name in STATUS_ORDER}
    return view


def _ask_service(home: Path, state: SystemState) -> tuple[dict[str, Any], dict[str, int] | None]:
    """Return the workers, as the site's dispatcher reports them, and the lag; without a service neither is known."""
    from upon.errors import UponError
    from upon.sdk.client import Client

    try:
        with Client(home=home) as client:
            system = client.status()
    except UponError:
        return {"state": "unknown", "pids": [], "restarts": 0, "busy": 0, "free": 0}, None
    managers = [m for site in system.sites if site.name == state.site and site.state == "up" for m in site.managers]
    busy, slots = sum(m.busy for m in managers), sum(m.slots for m in managers)
    workers = {
        "state": "up" if managers else "down",
        "pids": [pid for m in managers for pid in m.workers],
        "restarts": 0,
        "busy": busy,
        "free": slots - busy,
    }
    return workers, system.lag


def _print(view: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if view["state"] == "stopped":
        console.print(f"nothing runs in {view['home']}; start it with [bold]upon up[/]", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "state", "pids", "restarts", "lag", ""):
        table.add_column(heading)
    lag = view["lag"] or {}
    notes = {"kafka": view["kafka"], "service": view["service"], "manager": f"site {view['site']}"}
    workers = view["parts"]["workers"]
    failing = view["parts"]["sources"]["info"].get("failing", {})
    notes["sources"] = "; ".join(f"{name} failed at its start: {reason}" for name, reason in failing.items())
    notes["workers"] = f"{workers['busy']} busy, {workers['free']} free"
    colours = {"up": "green", "external": "green", "starting": "yellow"}
    for name, part in view["parts"].items():
        behind = [str(n) for key, n in lag.items() if key.partition(":")[0] == name]
        colour = colours.get(part["state"], "red")
        table.add_row(
            name,
            f"[{colour}]{part['state']}[/]",
            " ".join(map(str, part["pids"])),
            str(part["restarts"] or ""),
            behind[0] if behind else "",
            notes.get(name, ""),
        )
    console.print(table)
    console.print(f"home {view['home']}", soft_wrap=True)
