"""`upon functions`: register Python functions, see what is registered, delete versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from upon.cli.options import HomeOption, JsonOption, connect

if TYPE_CHECKING:
    from upon.api import FunctionVersion

app = typer.Typer(help="Register Python functions, list, show and delete them.")


@app.command()
def register(
    function: Annotated[str, typer.Argument(help="FILE.py:NAME or MODULE:NAME", metavar="FILE.py:NAME")],
    name: Annotated[str | None, typer.Option(help="to call it by (default: file and function name)")] = None,
    description: Annotated[str | None, typer.Option(help="(default: the first line of its docstring)")] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Register the next version of a function. The same code again is the same version.

    Example: upon functions register thumbs.py:make_thumbnail --name thumbs.make
    """
    from upon.cli.output import print_json
    from upon.sdk.loading import default_name, load

    loaded = load(function)
    with connect(home) as client:
        found = client.register(loaded, name or default_name(function), description=description)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"registered {found.name}@{found.version}")


@app.command("list")
def list_(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List all functions, every version, newest first.

    Example: upon functions list --json
    """
    from upon.cli.output import print_json, print_table, when

    with connect(home) as client:
        found = client.functions()
    if as_json:
        print_json(found)
        return
    rows = ((f.name, f.version, f.description, f.python, f.principal, when(f.created)) for f in found)
    print_table(
        ("name", "version", "description", "python", "by", "registered"),
        rows,
        "no functions yet; `upon functions register FILE.py:NAME` adds one",
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="its name, with @VERSION for an older one", metavar="NAME")],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show a function: its versions' data and its source text.

    Example: upon functions show thumbs.make@1
    """
    from upon.cli.output import console, print_json, when

    with connect(home) as client:
        found = client.function(name)
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(f"[bold]{found.name}@{found.version}[/]  {found.description}", soft_wrap=True)
    out.print(
        f"code {found.code[:12]}, Python {found.python}, registered {when(found.created)} by {found.principal}",
        style="dim",
        soft_wrap=True,
    )
    if found.source:
        from rich.syntax import Syntax

        out.print(Syntax(found.source.rstrip(), "python", background_color="default"))


@app.command()
def versions(
    name: Annotated[str, typer.Argument(help="the function's name", metavar="NAME")],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List all versions of a function, newest first, with the rules that run each; deleted ones too.

    Example: upon functions versions thumbs.make
    """
    from upon.cli.output import print_json, print_table, short, when

    with connect(home) as client:
        found = client.function_versions(name)
    if as_json:
        print_json(found)
        return
    rows = (
        (f.version, _state(f), short(", ".join(f.rules)), f.description, f.python, f.principal, when(f.created))
        for f in found
    )
    print_table(("version", "", "rules", "description", "python", "by", "registered"), rows, "no versions")


@app.command()
def delete(
    function: Annotated[str, typer.Argument(help="NAME@VERSION, or NAME for all versions", metavar="NAME[@VERSION]")],
    force: Annotated[
        bool, typer.Option("--force", help="also what rules run: their events become dead letters")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Delete a version of a function, or all of them; refused if rules run it. The version before is the newest then.

    Tasks that are queued run all the same. A version's number is never given again.

    Example: upon functions delete thumbs.make@2
    """
    from upon.cli.output import print_json

    with connect(home) as client:
        gone = client.delete_function(function, force=force)
        name = gone[0].name
        newest = next((one.version for one in client.function_versions(name) if one.newest), None)
    if as_json:
        print_json(gone)
        return
    for one in gone:
        used = f", which {', '.join(one.rules)} ran" if one.rules else ""
        typer.echo(f"deleted {name}@{one.version}{used}")
    typer.echo(f"{name} is {name}@{newest} now" if newest else f"there is no version of {name} any more", err=True)


def _state(version: FunctionVersion) -> str:
    from upon.cli.output import when

    if version.deleted:
        return f"deleted {when(version.deleted)} by {version.deleted_by}"
    return "newest" if version.newest else ""
