"""The command `upon`: all commands in their places, and errors as one clear message.

Exit codes: 0 done; 1 it failed; 2 what was given is wrong (usage, a rule, a function, an event, a setting).
Every command module imports what is heavy inside its functions: `upon --help`, and each part that starts through
here, pays for nothing else.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

RUN, LOOK, AUTHOR, REPAIR = "Run", "Look", "Author", "Repair"

COMMANDS = [
    ("up", "upon.cli.up", RUN),
    ("down", "upon.cli.down", RUN),
    ("status", "upon.cli.status", RUN),
    ("restart", "upon.cli.restart", RUN),
    ("watch", "upon.cli.watch", RUN),
    ("part", "upon.cli.part", RUN),
    ("install-service", "upon.cli.install_service", RUN),
    ("invoke", "upon.cli.invoke", RUN),
    ("events", "upon.cli.events", LOOK),
    ("tasks", "upon.cli.tasks", LOOK),
    ("sites", "upon.cli.sites", LOOK),
    ("logs", "upon.cli.logs", LOOK),
    ("functions", "upon.cli.functions", AUTHOR),
    ("rules", "upon.cli.rules", AUTHOR),
    ("sources", "upon.cli.sources", AUTHOR),
    ("deadletters", "upon.cli.deadletters", REPAIR),
    ("doctor", "upon.cli.doctor", REPAIR),
]
"""Each command's name, its module and where the help shows it. A module has a function, or a Typer named `app`."""


class InOrder(TyperGroup):
    """Lists commands as they stand in `COMMANDS`."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override,unused-ignore]
        return [name for name, _, _ in COMMANDS]


def build() -> typer.Typer:
    """Return the whole command."""
    app = typer.Typer(
        name="upon",
        cls=InOrder,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(upon)
    for name, place, panel in COMMANDS:
        module = import_module(place)
        found = getattr(module, name.replace("-", "_"), None)
        if found is None:
            app.add_typer(module.app, name=name, rich_help_panel=panel, no_args_is_help=True)
        else:
            first = (found.__doc__ or "").partition("\n")[0].partition(". ")[0].rstrip(".")
            app.command(name, rich_help_panel=panel, short_help=first)(found)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from upon import __version__

        typer.echo(f"upon {__version__}")
        raise typer.Exit


def upon(
    home: Annotated[
        Path | None, typer.Option(help="the folder of the system to use (default: UPON_HOME); any command takes it")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error (or set UPON_DEBUG)")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Upon an event, run a function where it belongs.

    Start a system with [bold]upon up[/], register a function, apply a rule, and let events run it.
    """
    if home is not None:
        os.environ["UPON_HOME"] = str(home)
    if debug:
        os.environ["UPON_DEBUG"] = "1"


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    try:
        build()(prog_name="upon")
    except BrokenPipeError:  # `upon … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("UPON_DEBUG"):
            raise
        sys.exit(explain(error))
    sys.exit(0)


def explain(error: Exception) -> int:
    """Print one clear message on stderr; return the exit code."""
    from rich.console import Console
    from rich.text import Text

    from upon.errors import ConfigError, InputError, UponError
    from upon.machine import refusal

    text = refusal(error) or str(error)
    if not isinstance(error, UponError) and not refusal(error):
        text = f"unexpected {type(error).__name__}: {text}\nThis is a fault of Upon: `upon --debug …` shows more."
    Console(stderr=True, highlight=False).print(Text("error", "bold red"), Text(text), soft_wrap=True)
    return 2 if isinstance(error, InputError | ConfigError) else 1
