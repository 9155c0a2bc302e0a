"""`upon tasks`: what ran, what runs, how it went, and stop it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from upon.cli.options import HomeOption, JsonOption, connect

if TYPE_CHECKING:
    from rich.console import Console

    from upon.api import Task
    from upon.messages import Status
    from upon.sdk.client import Client

app = typer.Typer(help="List tasks, show one with its timings, cancel.")
PREFIX_AMONG = 1000
"""How many of the newest tasks an abbreviated id is looked up in."""
FULL_LENGTH = 36
"""Characters of a whole id."""


class StatusName(StrEnum):
    """What a task can be."""

    pending = "pending"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


@app.command("list")
def list_(
    *,
    status: Annotated[StatusName | None, typer.Option(help="only tasks that are so")] = None,
    rule: Annotated[str | None, typer.Option(help="only tasks that this rule fired")] = None,
    function: Annotated[str | None, typer.Option(help="only tasks of this function")] = None,
    site: Annotated[str | None, typer.Option(help="only tasks at this site")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="the newest so many")] = 50,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List tasks, newest first.

    Example: upon tasks list --status failed --limit 10
    """
    from upon.cli.output import SHORT_ID, coloured, milliseconds, print_json, print_table, when

    chosen: Status | None = status.value if status else None
    with connect(home) as client:
        found = client.tasks(status=chosen, rule=rule, function=function, site=site, limit=limit)
    if as_json:
        print_json(found)
        return
    rows = (
        (t.id[:SHORT_ID], coloured(t.status), _function(t), t.site, t.rule, when(t.submitted), milliseconds(t.duration),
         t.error.type if t.error else _beyond(t))
        for t in found
    )  # fmt: skip
    print_table(("id", "status", "function", "site", "rule", "submitted", "took", "error"), rows, "no tasks")


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="the task's id, or its beginning", metavar="ID")],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show one task: status, time of each hop, result or traceback, the event and the rule that caused it.

    Example: upon tasks show 3f2a9c1e
    """
    from upon.cli.output import console, print_json

    with connect(home) as client:
        task = client.task(whole_id(client, id))
    if as_json:
        print_json(task)
    else:
        _print(task, console())


@app.command()
def cancel(
    ids: Annotated[list[str], typer.Argument(help="ids of tasks, or their beginnings", metavar="ID…")],
    home: HomeOption = None,
) -> None:
    """Cancel tasks: one that is queued never starts, one that runs is killed, one that is done stays as it is.

    Example: upon tasks cancel 3f2a9c1e
    """
    with connect(home) as client:
        for id in [whole_id(client, one) for one in ids]:
            client.cancel(id)
            typer.echo(f"asked to cancel {id}")


def whole_id(client: Client, id: str) -> str:
    """Return the id that `id` is, or begins alone among the newest tasks. Raises as `the_one`."""
    if len(id) >= FULL_LENGTH:
        return id
    return the_one(id, [task.id for task in client.tasks(limit=PREFIX_AMONG)])


def the_one(beginning: str, ids: list[str]) -> str:
    """Return the only one of `ids` with this beginning; `beginning` itself if it is one, or begins none.

    Raises:
        TaskNotFound: several do.
    """
    from upon.errors import TaskNotFound

    found = [id for id in ids if id.startswith(beginning)]
    if beginning in found or not found:
        return beginning
    if len(found) > 1:
        raise TaskNotFound(f"{len(found)} tasks begin with {beginning}: {', '.join(found[:3])} …; give more of the id")
    return found[0]


def _beyond(task: Task) -> str:
    """Return that a task runs far beyond its function's usual time, if it does."""
    from upon.cli.output import milliseconds

    return f"straggler, usually {milliseconds(task.usual * 1000)}" if task.usual is not None else ""


def _function(task: Task) -> str:
    named = f"{task.function}@{task.version}" if task.version else task.function
    return f"{named} x {task.items:,}" if task.items else named


def _print(task: Task, out: Console) -> None:
    from rich.text import Text

    from upon.cli.output import coloured, milliseconds, print_error, short

    out.print(Text(task.id, "bold"), coloured(task.status), soft_wrap=True)
    facts = {
        "function": _function(task),
        "site": task.site,
        "worker": task.worker,
        "attempts": str(task.attempts),
        "took": milliseconds(task.duration),
        "by": task.principal,
        "rule": f"{task.rule}@{task.rule_revision}" if task.rule else "",
    }
    if task.event is not None:
        facts["event"] = f"{task.event.type}  {task.event.subject or task.event.source}  ({task.event.id})"
        if task.event.depth > 1:
            facts["chain"] = f"{task.event.depth} firings, from event {task.event.root} on"
    elif task.event_id:
        facts["event"] = task.event_id
    for name, fact in facts.items():
        if fact:
            out.print(Text(f"{name:<10}", "dim"), Text(fact), sep="", soft_wrap=True)
    _print_hops(task)
    if task.stdout:
        out.print(Text("\nprinted", "dim"))
        out.print(Text(task.stdout.rstrip()), soft_wrap=True)
    if task.error is not None:
        out.print()
        print_error(task.error, out)
    elif task.status == "succeeded":
        out.print(Text("\nresult", "dim"))
        out.print(Text(short(task.result, 5_000)), soft_wrap=True)


def _print_hops(task: Task) -> None:
    """Print when the task passed each hop: since the first, and since the one before."""
    from upon.cli.output import milliseconds, print_table

    rows, before = [], 0.0
    for hop in task.timings:
        rows.append((hop.name, hop.at, milliseconds(hop.after), f"+{milliseconds(hop.after - before)}"))
        before = hop.after
    if rows:
        typer.echo("")
        print_table(("hop", "at", "after", "since the last"), rows, "")
