"""`upon status`: how the parts of this machine's system do, looked at now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upon.cli.up import HomeOption

if TYPE_CHECKING:
    from upon.api import Summary
    from upon.embedded.state import SystemState


def status(
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Show each part: up or down, process ids, restarts; lag; workers busy and free; what is wrong.

    Exit code 0 if all is up, 1 if anything is not: starting, degraded or stopped.

    Example: upon status --json
    """
    view = seen(home)
    if as_json:
        typer.echo(json.dumps(view, indent=2))
    else:
        _print(view)
    if view["state"] != "up":
        raise typer.Exit(1)


def seen(home: Path | None) -> dict[str, Any]:
    """Return what `upon status --json` prints, looked at now."""
    from upon.config import Home
    from upon.embedded import health
    from upon.embedded.state import read_state

    place = Home(home)
    state = read_state(place)
    view = health.judge(place.path, state, health.look(place, state))
    _add_service(view, place.path, state)
    return view


def _add_service(view: dict[str, Any], home: Path, state: SystemState | None) -> None:
    """Add what only the parts know: workers, as the site's dispatcher reports them, lag, each source's state now."""
    from msgspec import to_builtins

    from upon.embedded.parts import KAFKA, STATUS_ORDER
    from upon.triggers import report

    workers: dict[str, Any] = {"state": "stopped" if state is None else "unknown", "pids": [], "restarts": 0}
    workers |= {"busy": 0, "free": 0}
    lag = summary = None
    parts = view["parts"]
    if state is not None and parts["service"]["state"] == "up" and parts[KAFKA]["state"] in ("up", "external"):
        workers, lag, summary = _ask_service(home, state)
    view["lag"], view["summary"] = lag, to_builtins(summary)
    if (found := report.read(home)) is not None and parts["sources"]["state"] == "up":
        parts["sources"]["info"] = {
            "file": found.file,
            "problem": found.problem,
            "sources": [one.name for one in found.sources],
            "failing": {one.name: one.reason for one in found.sources if one.state in ("failing", "wrong")},
        }
    view["parts"] = {name: {**parts, "workers": workers}[name] for name in STATUS_ORDER}


def _ask_service(home: Path, state: SystemState) -> tuple[dict[str, Any], dict[str, int] | None, Summary | None]:
    from upon.errors import UponError
    from upon.sdk.client import Client

    try:
        with Client(home=home, service=state.service) as client:
            system, summary = client.status(), client.summary()
    except UponError:
        return {"state": "unknown", "pids": [], "restarts": 0, "busy": 0, "free": 0}, None, None
    long = [one for site in system.sites if site.name == state.site for one in site.stragglers]
    managers = [m for site in system.sites if site.name == state.site and site.state == "up" for m in site.managers]
    busy, slots = sum(m.busy for m in managers), sum(m.slots for m in managers)
    workers = {
        "state": "up" if managers else "down",
        "pids": [pid for m in managers for pid in m.workers],
        "restarts": 0,
        "busy": busy,
        "free": slots - busy,
        "stragglers": [{"id": one.id, "function": one.function, "ran": one.ran, "usual": one.usual} for one in long],
    }
    return workers, system.lag, summary


def _print(view: dict[str, Any]) -> None:
    from msgspec import convert
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from upon.api import Summary
    from upon.cli.attention import attention
    from upon.cli.output import in_store
    from upon.embedded.parts import describe_cut

    console = Console(highlight=False)
    if view["state"] == "stopped":
        console.print(f"nothing runs in {view['home']}; start it with [bold]upon up[/]", soft_wrap=True)
    else:
        console.print(_table(view, Table(box=None, pad_edge=False)))
        console.print(f"home {view['home']}", soft_wrap=True)
        if lost := view["parts"]["kafka"]["info"].get("cut_off"):
            console.print(Text(f"kafka: {describe_cut(lost)}", "yellow"), soft_wrap=True)
        if view["summary"] is not None:
            summary = convert(view["summary"], Summary)
            for line in attention(summary):
                console.print(Text(line, "yellow"), soft_wrap=True)
            kept = "; ".join(f"{what} {how}" for what, how in summary.retention.items())
            console.print(Text(f"kept: {kept}", "dim"), soft_wrap=True)
            if summary.store is not None:
                console.print(Text(f"store: {in_store(summary.store)}", "dim"), soft_wrap=True)
    for trouble in view["troubles"]:
        console.print(Text("!", "bold red"), Text(trouble), soft_wrap=True)


def _table(view: dict[str, Any], table: Any) -> Any:
    from rich.text import Text

    for heading in ("part", "state", "pids", "restarts", "lag", ""):
        table.add_column(heading)
    lag = view["lag"] or {}
    notes = {"kafka": view["kafka"], "service": view["service"], "manager": f"site {view['site']}"}
    workers = view["parts"]["workers"]
    notes["sources"] = _sources(view["parts"]["sources"]["info"])
    notes["workers"] = f"{workers['busy']} busy, {workers['free']} free" + _stragglers(workers.get("stragglers", []))
    colours = {"up": "green", "external": "green", "starting": "yellow"}
    for name, part in view["parts"].items():
        behind = [str(n) for key, n in lag.items() if key.partition(":")[0] == name]
        table.add_row(
            name,
            Text(part["state"], colours.get(part["state"], "red")),
            " ".join(map(str, part["pids"])),
            str(part["restarts"] or ""),
            behind[0] if behind else "",
            Text(notes.get(name, "")),
        )
    return table


def _stragglers(found: list[dict[str, Any]]) -> str:
    """Return the tasks that run far beyond their function's usual time."""
    from upon.cli.output import SHORT_ID
    from upon.durations import format_duration

    said = [
        f"{one['function'] or 'a function'} runs for {format_duration(round(one['ran']))}, usually "
        f"{format_duration(one['usual']) if one['usual'] >= 0.001 else 'under 1ms'} (task {one['id'][:SHORT_ID]})"
        for one in found[:3]
    ]
    more = [f"{len(found) - 3} more"] if len(found) > 3 else []
    return "".join(f"; {line}" for line in said + more)


def _sources(info: dict[str, Any]) -> str:
    """Return the sources that run, and why others do not, as the part reports them now."""
    failing = info.get("failing", {})
    well = [name for name in info.get("sources", []) if name not in failing]
    shown = ", ".join(well[:5]) + (f" and {len(well) - 5} more" if len(well) > 5 else "")
    told = [f"{info['file']}: {info['problem']}"] if info.get("problem") else []
    return "; ".join([shown] * bool(shown) + told + [f"{name} is failing: {why}" for name, why in failing.items()])
