"""`upon watch`: a filesystem source in the foreground."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upon.cli.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from upon.config import Settings
    from upon.events import Event
    from upon.part import Part


def watch(
    folders: Annotated[list[Path], typer.Argument(help="folders to watch", metavar="DIR…")],
    *,
    pattern: Annotated[
        list[str] | None, typer.Option(help="only files whose name matches, such as '*.h5'; may repeat")
    ] = None,
    recursive: Annotated[bool, typer.Option(help="folders below as well")] = True,
    polling: Annotated[bool, typer.Option("--polling", help="scan again and again (NFS, Lustre, SMB)")] = False,
    settle: Annotated[
        str | None, typer.Option(help="how long a file must stand still whose close is not notified", metavar="5s")
    ] = None,
    existing: Annotated[bool, typer.Option(help="announce what was there before the first start, too")] = True,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Publish an event upon.file.ready for each file that is completed in a folder, and print it, until Ctrl-C.

    What was announced is remembered: started again, it announces what was completed meanwhile, and nothing twice.

    Example: upon watch ./incoming --pattern "*.tif"
    """
    from upon.config import Settings
    from upon.errors import ConfigError

    settings = Settings.load(home)
    settings.need_kafka()
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; `upon watch` needs one that is there")
    if "UPON_LOG_LEVEL" not in os.environ:
        settings.log_level = "warning"  # a person watches: what is ready is printed, what is normal is not logged
    options = {
        "patterns": pattern or None,
        "recursive": recursive,
        "mode": "polling" if polling else None,
        "settle": settle,
        "existing": existing,
    }
    raise typer.Exit(_run(settings, [Path(os.path.abspath(folder)) for folder in folders], options, as_json))


def _run(settings: Settings, folders: list[Path], options: dict[str, Any], as_json: bool) -> int:
    """Watch until stopped; return the exit code."""
    import sys

    from upon.errors import ConfigError
    from upon.part import run_part

    try:
        from upon.triggers.runner import watch as watch_folders
    except ModuleNotFoundError as error:
        raise ConfigError(f"watching folders needs {error.name}: pip install 'upon[sources]'") from error

    def show(event: Event) -> None:
        _print(event, as_json)

    async def main(part: Part, settings: Settings) -> None:
        await watch_folders(part, settings, folders, show, **options)

    if sys.stderr.isatty():
        typer.echo(f"watching {', '.join(map(str, folders))}; Ctrl-C stops", err=True)
    return run_part("watch", settings, main, needs_kafka=False)


def _print(event: Event, as_json: bool) -> None:
    from rich.text import Text

    from upon.cli.output import console, print_line, when

    if as_json:
        print_line(event.to_dict())
        return
    data = event.data if isinstance(event.data, dict) else {}
    console().print(
        Text(when(event.time), "dim"),
        Text(event.type, "cyan"),
        Text(event.subject or event.source, "bold"),
        Text(f"{data.get('size', 0):,} bytes, {data.get('reason', '')}"),
        soft_wrap=True,
    )
