"""`upon deadletters`: what could not be processed, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from upon.cli.options import HomeOption, JsonOption, connect

app = typer.Typer(help="See what could not be processed, and why.")
SHOW_AMONG = 1000
"""How many of the newest dead letters `show` looks through."""


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="the newest so many")] = 50,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List dead letters, newest first.

    Example: upon deadletters list
    """
    from upon.cli.output import SHORT_ID, print_json, print_table, short, when

    with connect(home) as client:
        found = client.deadletters(limit=limit)
    if as_json:
        print_json(found)
        return
    rows = ((d.id[:SHORT_ID], when(d.at), d.part, d.origin, short(d.reason, 120)) for d in found)
    print_table(("id", "at", "given up by", "from", "reason"), rows, "no dead letters")


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="the dead letter's id, or its beginning", metavar="ID")],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show one dead letter whole.

    Example: upon deadletters show 3f2a9c1e
    """
    from rich.text import Text

    from upon.cli.output import console, print_json, when
    from upon.errors import ServiceError

    with connect(home) as client:
        found = [letter for letter in client.deadletters(limit=SHOW_AMONG) if letter.id.startswith(id)]
    if len(found) != 1:
        what = f"{len(found)} dead letters begin with" if found else "no dead letter has the id"
        raise ServiceError(f"{what} {id}; `upon deadletters list` shows what there is")
    (letter,) = found
    if as_json:
        print_json(letter)
        return
    out = console()
    out.print(Text(letter.id, "bold"), soft_wrap=True)
    facts = {"given up": when(letter.at), "by": letter.part, "from": letter.origin, "attempts": str(letter.attempts)}
    for name, fact in facts.items():
        out.print(Text(f"{name:<10}", "dim"), Text(fact), sep="", soft_wrap=True)
    out.print(Text(f"\n{letter.reason}\n", "red"), soft_wrap=True)
    out.print(Text(letter.value), soft_wrap=True)
