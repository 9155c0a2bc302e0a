"""`upon sites`: where functions can run."""

from __future__ import annotations

import typer

from upon.cli.options import HomeOption, JsonOption, connect

app = typer.Typer(help="See the sites where functions run.")


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
