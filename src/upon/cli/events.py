"""`upon events`: see events as they pass, and publish one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from upon.cli.options import HomeOption, JsonOption, connect

if TYPE_CHECKING:
    from upon.sdk.watching import Changes

app = typer.Typer(help="See events as they come, publish one.")


@app.command()
def tail(
    types: Annotated[
        list[str] | None, typer.Option("--type", help="only this type; a * at its end stands for anything; may repeat")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="stop after so many")] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Print each event as it passes, one a line, until Ctrl-C.

    Example: upon events tail --type "upon.file.*"
    """
    import sys

    left = count
    try:
        with connect(home) as client, client.watch(events=True) as changes:
            if sys.stderr.isatty():
                typer.echo("waiting for events; Ctrl-C stops", err=True)
            for event in _matching(changes, types or []):
                _print(event, as_json)
                if left is not None and (left := left - 1) == 0:
                    return
    except KeyboardInterrupt:
        return


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

    exact = {one for one in types if not one.endswith("*")}
    prefixes = tuple(one[:-1] for one in types if one.endswith("*"))
    for change in changes:
        if change.missed:
            typer.echo(f"{change.missed} events were missed here: they come faster than they are printed", err=True)
        if isinstance(change, EventSeen):
            found = change.event["type"]
            if not types or found in exact or (prefixes and found.startswith(prefixes)):
                yield change.event


def _print(event: dict[str, Any], as_json: bool) -> None:
    from rich.text import Text

    from upon.cli.output import console, print_line, short, when

    if as_json:
        print_line(event)
        return
    data = event.get("data", event.get("data_base64"))
    console().print(
        Text(when(event.get("time")) or "--:--:--", "dim"),
        Text(event["type"], "cyan"),
        Text(event.get("subject") or event["source"], "bold"),
        Text("" if data is None else short(data, 200)),
        soft_wrap=True,
    )
