"""`upon sites`: where functions can run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from upon.cli.options import HomeOption, JsonOption, connect

if TYPE_CHECKING:
    from upon.api import Site
    from upon.sdk.client import Client

app = typer.Typer(help="See the sites where functions run; have them start nothing more, and go on.")
LOOK_EVERY = 0.5
"""Seconds between two looks at what still runs."""


@app.command("list")
def list_(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the sites: their managers, free and busy slots, what waits, and what runs far beyond its usual time.

    Example: upon sites list
    """
    from upon.cli.output import coloured, print_json, print_table, when

    with connect(home) as client:
        found = client.sites()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            s.name,
            coloured(s.state),
            len(s.managers),
            s.busy,
            s.slots - s.busy,
            s.queued,
            s.running,
            len(s.stragglers) or "",
            s.host,
            when(s.seen),
        )
        for s in found
    )
    print_table(
        ("name", "state", "managers", "busy", "free", "queued", "running", "stragglers", "host", "seen"),
        rows,
        "no site has reported yet; `upon up` starts one",
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="the site's name", metavar="SITE")],
    *,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show one site: its managers, by the ids that `drain` takes.

    Example: upon sites show local
    """
    from upon.cli.output import print_json, print_table

    with connect(home) as client:
        site = _site(client, name)
    if as_json:
        print_json(site)
        return
    rows = ((m.id, m.host, m.busy, m.slots - m.busy, m.python, len(m.workers)) for m in site.managers)
    closed = "; it starts nothing more (upon sites resume)" if site.draining else ""
    typer.echo(f"{site.name} is {site.state}: {site.running} running, {site.queued} waiting{closed}")
    print_table(("manager", "host", "busy", "free", "python", "workers"), rows, "no manager is there")
    if site.remembered:
        typer.echo(f"{site.remembered:,} results are remembered; one was given again {site.repeated:,} times")
    for one in site.stragglers:
        typer.echo(f"task {one.id} ({one.function}) runs for {one.ran:.0f} s; usually it takes {one.usual:.1f} s")


@app.command()
def drain(
    name: Annotated[str, typer.Argument(help="the site's name", metavar="SITE")],
    manager: Annotated[list[str] | None, typer.Option(help="this manager alone; `sites show` names them")] = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="until nothing runs there any more")] = False,
    home: HomeOption = None,
) -> None:
    """Start nothing more at a site; what runs goes on to its end, the rest waits until `upon sites resume`.

    With --manager: that one takes nothing more, ends when nothing runs there any more, and what it had waiting goes
    to others; so nodes are replaced one after the other.

    Example: upon sites drain local --wait
    """
    managers = manager or []
    with connect(home) as client:
        client.drain(name, *managers)
        typer.echo(f"site {name}: " + (f"{', '.join(managers)} will end" if managers else "nothing more is started"))
        said = -1
        while wait and (left := _left(_site(client, name), managers)):
            if said != (said := left):
                typer.echo(f"waiting for {left} {'manager' if managers else 'running task'}{'s' * (left != 1)}")
            time.sleep(LOOK_EVERY)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="the site's name", metavar="SITE")], home: HomeOption = None
) -> None:
    """Start tasks again at a site that was drained.

    Example: upon sites resume local
    """
    with connect(home) as client:
        client.drain(name, on=False)
    typer.echo(f"site {name}: tasks are started again")


def _left(site: Site, managers: list[str]) -> int:
    """Return how much is waited for; a site that has not said that it drains may still start something."""
    if managers:
        return sum(one.id in managers for one in site.managers)
    return site.running if site.draining or site.state == "down" else max(1, site.running)


def _site(client: Client, name: str) -> Site:
    from upon.errors import SiteNotFound

    sites = {site.name: site for site in client.sites()}
    if name not in sites:
        raise SiteNotFound(f"site {name!r} does not exist; there are: {', '.join(sites) or 'none'}")
    return sites[name]
