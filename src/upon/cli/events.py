"""`upon events`: see events as they pass, those of the past, and publish one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from upon.cli.options import HomeOption, JsonOption, connect
from upon.cli.times import SinceOption, UntilOption, moment

if TYPE_CHECKING:
    from upon.sdk.watching import Changes

TypesOption = Annotated[
    list[str] | None, typer.Option("--type", help="only this type; a * at its end stands for anything; may repeat")
]
app = typer.Typer(help="See events as they come and those of the past, publish one.")


@app.command()
def tail(
    types: TypesOption = None,
    count: Annotated[int | None, typer.Option(min=1, help="stop after so many")] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Print each event as it passes, one a line, until Ctrl-C.

    Example: upon events tail --type "upon.file.*"
    """
    import sys

    from upon.cli.output import print_line

    left = count
    try:
        with connect(home) as client, client.watch(events=True) as changes:
            if sys.stderr.isatty():
                typer.echo("waiting for events; Ctrl-C stops", err=True)
            for event in _matching(changes, types or []):
                if as_json:
                    print_line(event)
                else:
                    _print(event, event.get("time"))
                if left is not None and (left := left - 1) == 0:
                    return
    except KeyboardInterrupt:
        return


@app.command("list")
def list_(
    *,
    types: TypesOption = None,
    source: Annotated[str | None, typer.Option(help="only this source; a * at its end stands for anything")] = None,
    subject: Annotated[str | None, typer.Option(help="only what is about this, in the same form")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="the newest so many")] = 50,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List events of the past, newest last, as far as Kafka has them still; the time is when Kafka had them.

    Example: upon events list --since 1h --type "upon.file.*"
    """
    from upon.cli.output import print_json, when

    with connect(home) as client:
        found = client.events(
            type=types,
            source=source,
            subject=subject,
            since=moment(since, "--since"),
            until=moment(until, "--until"),
            limit=limit,
        )
    if as_json:
        print_json(found.events)
    for one in [] if as_json else found.events:
        _print(one.event, one.recorded, f"({one.left_out:,} bytes)" if one.left_out else "")
    if found.complete_since:
        typer.echo(
            f"not all was looked through: only after {when(found.complete_since)} nothing is missing; what was before: "
            f"--until {found.complete_since}",
            err=True,
        )
    elif len(found.events) == limit and found.more:
        typer.echo(f"there may be older ones: --until {found.events[0].recorded}, or a larger --limit", err=True)
    elif not found.events and not as_json:
        typer.echo("no events", err=True)


@app.command()
def publish(
    *,
    type: Annotated[str, typer.Option("--type", help="what happened, such as sample.ready")],
    source: Annotated[str, typer.Option(help="where it happened, a URI reference")] = "/upon/cli",
    subject: Annotated[str | None, typer.Option(help="what it happened to")] = None,
    data: Annotated[str | None, typer.Option(help="JSON, or text", metavar="JSON")] = None,
    id: Annotated[str | None, typer.Option("--id", help="of the event (default: a random UUID)")] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Publish one event; prints its id once Kafka has it.

    Example: upon events publish --type sample.ready --subject S-17 --data '{"mass": 3}'
    """
    from upon.cli.output import print_json
    from upon.events import Event
    from upon.ids import new_id

    content = None if data is None else _data(data)
    event = Event(type=type, source=source, subject=subject, data=content, id=id or new_id())
    with connect(home) as client:
        (published,) = client.publish(event)
    if as_json:
        print_json(event.to_dict())
    else:
        typer.echo(published)


def _data(text: str) -> Any:
    """Return JSON, or plain text; what begins like JSON and is none is a slip, not a text."""
    import json

    from upon.errors import EventError

    try:
        return json.loads(text)
    except ValueError as error:
        if text.lstrip().startswith(("{", "[", '"')):
            raise EventError(f"--data: not JSON: {error}: {text}") from error
        return text


def _matching(changes: Changes, types: list[str]) -> Any:
    """Yield the events of these types as they come, all if there are none."""
    from upon.api import EventSeen
    from upon.events import one_of

    for change in changes:
        if change.missed:
            typer.echo(f"{change.missed} events were missed here: they come faster than they are printed", err=True)
        if isinstance(change, EventSeen) and (not types or one_of(types, change.event["type"])):
            yield change.event


def _print(event: dict[str, Any], time: str | None, instead: str = "") -> None:
    """Print an event in one line. `instead`: of its data."""
    from rich.text import Text

    from upon.cli.output import console, short, when

    data = event.get("data", event.get("data_base64"))
    console().print(
        Text(when(time) or "--:--:--", "dim"),
        Text(event["type"], "cyan"),
        Text(event.get("subject") or event["source"], "bold"),
        Text(instead or ("" if data is None else short(data, 200))),
        soft_wrap=True,
    )
