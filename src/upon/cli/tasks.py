"""`upon tasks`: what ran, what runs, how it went; stop it, do it again."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upon.cli.options import HomeOption, JsonOption, connect
from upon.cli.times import SinceOption, UntilOption, moment

if TYPE_CHECKING:
    from rich.console import Console

    from upon.api import Task, TaskChoice
    from upon.messages import Status
    from upon.sdk.client import Client

app = typer.Typer(help="List tasks, show one with its timings, cancel, retry.")
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


class Retried(StrEnum):
    """What can be tried again."""

    failed = "failed"
    cancelled = "cancelled"


FunctionOption = Annotated[str | None, typer.Option(help="only tasks of this function, NAME or NAME@VERSION")]
RuleOption = Annotated[str | None, typer.Option(help="only tasks that this rule fired")]
SiteOption = Annotated[str | None, typer.Option(help="only tasks at this site")]
GroupOption = Annotated[str | None, typer.Option(help="only tasks of this Executor, as `tasks show` names it")]
SubjectOption = Annotated[str | None, typer.Option(help="only tasks whose event has this subject")]
IdsArgument = Annotated[list[str] | None, typer.Argument(help="their ids, or the beginnings of them", metavar="[ID…]")]


@app.command("list")
def list_(
    *,
    status: Annotated[StatusName | None, typer.Option(help="only tasks that are so")] = None,
    rule: RuleOption = None,
    function: FunctionOption = None,
    site: SiteOption = None,
    group: GroupOption = None,
    subject: SubjectOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    after: Annotated[
        str | None, typer.Option(help="the next page: the last id of the one before", metavar="ID")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="the newest so many")] = 50,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List tasks, newest first, and count those that have not succeeded; as JSON with results and output.

    Example: upon tasks list --status failed --since 2h
    """
    from upon.cli.output import SHORT_ID, coloured, milliseconds, print_json, print_table, short, when

    chosen: Status | None = status.value if status else None
    with connect(home) as client:
        found = client.tasks(
            status=chosen,
            rule=rule,
            function=function,
            site=site,
            group=group,
            subject=subject,
            since=moment(since, "--since"),
            until=moment(until, "--until"),
            after=whole_id(client, after) if after else None,
            details=as_json,
            limit=limit,
        )
        counts = {} if as_json else client.summary().tasks
    if as_json:
        print_json(found)
        return
    rows = (
        (t.id[:SHORT_ID], coloured(t.status), _function(t), short(t.event.subject if t.event else "", 40), t.site,
         t.rule, when(t.submitted), milliseconds(t.duration), t.error.type if t.error else _beyond(t))
        for t in found
    )  # fmt: skip
    headings = ("id", "status", "function", "subject", "site", "rule", "submitted", "took", "error")
    print_table(headings, rows, "no tasks")
    if len(found) == limit:
        typer.echo(f"there may be more: --after {found[-1].id[:SHORT_ID]}", err=True)
    if some := ", ".join(f"{count:,} {name}" for name, count in counts.items() if count):
        typer.echo(f"in all: {some}", err=True)


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
def logs(
    id: Annotated[str, typer.Argument(help="the task's id, or its beginning", metavar="ID")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the task has ended, or Ctrl-C")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show what a task has printed, also while it runs (once that takes a second), and with --follow what comes.

    Example: upon tasks logs 3f2a9c1e --follow
    """
    import contextlib

    from upon.cli.output import print_json, print_line

    with connect(home) as client, contextlib.suppress(KeyboardInterrupt):
        task = whole_id(client, id)
        if as_json and not follow:
            print_json(client.output(task))
            return
        texts = client.follow_output(task) if follow else iter((client.output(task).text,))
        for text in texts:
            if as_json:
                print_line({"text": text})
            else:
                typer.echo(text, nl=False)


@app.command()
def cancel(
    ids: IdsArgument = None,
    *,
    rule: RuleOption = None,
    function: FunctionOption = None,
    site: SiteOption = None,
    group: GroupOption = None,
    subject: SubjectOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    all_: Annotated[bool, typer.Option("--all", help="all that are queued or run")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Cancel tasks: one that is queued never starts, one that runs is killed, one that is done stays as it is.

    Example: upon tasks cancel --rule thumbnails
    """
    from upon.cli.dealing import deal

    with connect(home) as client:
        filters = {"rule": rule, "function": function, "site": site, "group": group, "subject": subject, "all": all_}
        deal(client.cancel_tasks, _choice(client, ids, since, until, **filters), "asked to cancel", as_json)


@app.command()
def retry(
    ids: IdsArgument = None,
    *,
    status: Annotated[Retried, typer.Option(help="which to try again")] = Retried.failed,
    rule: RuleOption = None,
    function: FunctionOption = None,
    site: SiteOption = None,
    group: GroupOption = None,
    subject: SubjectOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    all_: Annotated[bool, typer.Option("--all", help="all that failed")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Do tasks that failed once more, with the same arguments and the same code; what became of them before is kept.

    Example: upon tasks retry --function thumbs.make --since 1d
    """
    from upon.cli.dealing import deal

    with connect(home) as client:
        filters = {"rule": rule, "function": function, "site": site, "group": group, "subject": subject, "all": all_}
        choice = _choice(client, ids, since, until, status=None if ids else status.value, **filters)
        deal(client.retry_tasks, choice, "run again", as_json)


def _choice(client: Client, ids: list[str] | None, since: str | None, until: str | None, **filters: Any) -> TaskChoice:
    from upon.api import TaskChoice

    return TaskChoice(
        ids=[whole_id(client, id) for id in ids] if ids else None,
        since=moment(since, "--since"),
        until=moment(until, "--until"),
        **filters,
    )


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
        "executor": task.group,
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
    for one in task.history:
        said = f": {one.error.type}: {short(one.error.message, 200)}" if one.error else ""
        out.print(Text("before    ", "dim"), Text(f"{one.finished or ''} {one.status}{said}"), sep="", soft_wrap=True)
    _print_hops(task)
    if task.stdout:
        out.print(Text("\nprinted so far" if task.status == "running" else "\nprinted", "dim"))
        out.print(Text(task.stdout.rstrip()), soft_wrap=True)
    if task.error is not None:
        out.print()
        print_error(task.error, out)
    elif task.status == "succeeded":
        out.print(Text("\nresult", "dim"))
        out.print(Text(short(_result(task.result), 5_000)), soft_wrap=True)


def _result(value: Any) -> Any:
    """Return a result for people: of one in the store its size and what the worker said of it."""
    match value:
        case {"python": preview, "reference": {"bytes": size}}:
            return f"by reference, {size:,} bytes: {preview}"
    return value


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
