"""`upon sources`: check, apply and list event sources, and have one announce again what is past."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upon.cli.options import HomeOption, JsonOption
from upon.cli.times import SinceOption, moment_ns

if TYPE_CHECKING:
    from upon.config import Settings
    from upon.triggers.report import Report
    from upon.triggers.sources_file import SourceSpec

app = typer.Typer(help="Check, apply and list event sources; announce again what is past.")
File = Annotated[Path, typer.Argument(help="YAML file of sources", metavar="FILE")]


@app.command()
def check(file: File, as_json: JsonOption = False) -> None:
    """Check a sources file without any system running. Prints every error as FILE:LINE:COLUMN: field: what.

    Example: upon sources check sources.yaml
    """
    _installed()
    from upon.cli.output import print_json
    from upon.triggers.sources_file import read_each, read_text

    specs, faults = read_each(read_text(file), str(file), file.absolute().parent)
    if as_json:
        print_json([{"source": fault.name, "problem": str(fault.error)} for fault in faults])
    for fault in [] if as_json else faults:
        typer.echo(str(fault.error))
    if faults:
        raise typer.Exit(2)
    if not as_json:
        typer.echo(f"{len(specs)} {'source is' if len(specs) == 1 else 'sources are'} fine")


@app.command()
def apply(file: File, home: HomeOption = None) -> None:
    """Run the sources of a file, and no others, from now on: at once if the system runs, else when it starts.

    What does not change goes on undisturbed. If anything in the file is wrong, nothing changes.

    Example: upon sources apply sources.yaml
    """
    _installed()
    from upon.config import Settings
    from upon.triggers import applied

    settings = Settings.load(home)
    before = {spec.name: spec for spec in _known(settings)}
    wanted = applied.apply(settings.places.path, file)
    names = {spec.name for spec in wanted.specs}
    for spec in wanted.specs:
        was = before.get(spec.name)
        typer.echo(f"{'added' if was is None else 'unchanged' if was == spec else 'changed'}  {spec.name}")
    for name in before.keys() - names:
        typer.echo(f"removed  {name}")
    if _running(settings) is None:
        typer.echo("no system runs in this home; they run when it is started: upon up")


@app.command("list")
def list_(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the sources with their present state, how many events they gave, and why one does not run.

    Example: upon sources list
    """
    _installed()
    from upon.cli.output import console, print_json, print_table, when
    from upon.config import Settings
    from upon.events import rfc3339
    from upon.triggers import report

    found = report.read(Settings.load(home).places.path)
    if as_json:
        print_json(found.sources if found else [])
        return
    if found and found.problem:
        console().print(f"the sources cannot be read: {found.problem}", soft_wrap=True, markup=False)
    rows = (
        (
            one.name, one.kind, _coloured(one.state), when(rfc3339(one.since) if one.since else ""), one.events,
            when(rfc3339(one.last_event) if one.last_event else ""), one.reason,
        )
        for one in (found.sources if found else ())
    )  # fmt: skip
    print_table(
        ("name", "kind", "state", "since", "events", "last event", "reason"),
        rows,
        "no sources; `upon sources apply FILE` runs those of a file",
    )


@app.command()
def replay(
    name: Annotated[str, typer.Argument(help="the source", metavar="NAME")],
    *,
    since: SinceOption = None,
    path: Annotated[str | None, typer.Option(help="only files that match, such as '*.h5' or '/data/7/*'")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be announced, and announce nothing")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Announce again what a source has announced and is there still, for a rule that is new.

    The events keep their ids: rules that have run on them do not run again.

    Example: upon sources replay incoming --since 7d --path "*.h5"
    """
    _installed()
    from upon.config import Settings
    from upon.errors import ConfigError

    settings = Settings.load(home)
    specs = {spec.name: spec for spec in _known(settings)}
    if name not in specs:
        raise ConfigError(f"there is no source {name!r}; there are: {', '.join(specs) or 'none'}")
    count = _replay(settings, specs[name], moment_ns(since, "--since"), path, dry_run=dry_run)
    typer.echo(f"{count} {'event' if count == 1 else 'events'} {'would be ' if dry_run else ''}announced again")


def _replay(settings: Settings, spec: SourceSpec, since_ns: int | None, path: str | None, *, dry_run: bool) -> int:
    import threading

    from upon.errors import KafkaUnavailable
    from upon.logs import get_logger
    from upon.triggers.checkpoint import Checkpoint
    from upon.triggers.publisher import Publisher
    from upon.triggers.source import Context

    checkpoint = Checkpoint.open_for_reading(settings.places.sources / spec.name)
    publisher = None if dry_run else Publisher(settings.need_kafka(), settings.topics)
    count = 0

    def publish(*_: Any) -> None:
        raise AssertionError("a source that replays yields its events")

    try:
        source = spec.cls(spec.config, Context(publish, checkpoint, threading.Event(), get_logger("replay")))
        for event in source.replay(since_ns, path):
            count += 1
            if publisher is None:
                typer.echo(event.subject or event.id)
            else:
                publisher.publish(event)
    finally:
        checkpoint.close()
        safe = publisher is None or publisher.close(60.0)
        if publisher is not None:
            publisher.check()  # a publisher that failed refuses events; this is why
    if not safe:
        raise KafkaUnavailable("Kafka did not take all events within 60 s; run the command again: ids stay the same")
    return count


def _known(settings: Settings) -> list[SourceSpec]:
    """Return the sources that were applied, as far as they can be read."""
    from upon.errors import ConfigError
    from upon.triggers import applied

    try:
        return list(applied.wanted(settings).specs)
    except ConfigError as error:
        typer.echo(f"what was applied before cannot be read: {error}", err=True)
        return []


def _running(settings: Settings) -> Report | None:
    """Return the report of a part that is there."""
    import psutil

    from upon.triggers import report

    found = report.read(settings.places.path)
    return found if found is not None and psutil.pid_exists(found.pid) else None


def _coloured(state: str) -> Any:
    from rich.text import Text

    colours = {"running": "green", "failing": "red", "wrong": "red", "starting": "yellow"}
    return Text(state, colours.get(state, ""))


def _installed() -> None:
    """Raise ConfigError if what sources need is not installed."""
    from upon.errors import ConfigError

    try:
        import upon.triggers.applied
        import upon.triggers.publisher  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"sources need {error.name}: pip install 'upon[sources]'") from error
