"""`upon deadletters`: what could not be processed, and why; try it again, or be done with it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upon.cli.options import HomeOption, JsonOption, connect
from upon.cli.times import SinceOption, UntilOption, moment

if TYPE_CHECKING:
    from upon.api import DeadLetterView, LetterChoice
    from upon.sdk.client import Client

app = typer.Typer(help="See what could not be processed, and why; try it again, or drop it.")


class StatusName(StrEnum):
    """Which dead letters."""

    open = "open"
    retried = "retried"
    dropped = "dropped"
    all = "all"


RuleOption = Annotated[str | None, typer.Option(help="only those of this rule")]
ReasonOption = Annotated[str | None, typer.Option(help="only those with this text in their reason")]
IdsArgument = Annotated[list[str] | None, typer.Argument(help="their ids, or the beginnings of them", metavar="[ID…]")]
AllOption = Annotated[bool, typer.Option("--all", help="all that are open")]


@app.command("list")
def list_(
    *,
    status: Annotated[StatusName, typer.Option(help="open: nobody has dealt with them")] = StatusName.open,
    rule: RuleOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    after: Annotated[
        str | None, typer.Option(help="the next page: the last id of the one before", metavar="ID")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="the newest so many")] = 50,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List dead letters, newest first.

    Example: upon deadletters list --rule thumbnails --since 1d
    """
    from upon.cli.output import SHORT_ID, print_json, print_table, short, when

    with connect(home) as client:
        found = client.deadletters(
            status=status.value,
            rule=rule,
            reason=reason,
            since=moment(since, "--since"),
            until=moment(until, "--until"),
            after=_whole_id(client, after) if after else None,
            limit=limit,
        )
    if as_json:
        print_json(found)
        return
    rows = (
        (
            d.id[:SHORT_ID],
            when(d.at),
            d.status,
            d.rule or d.part,
            short(d.event_id or d.origin, 40),
            short(d.reason, 120),
        )
        for d in found
    )
    print_table(("id", "at", "status", "of", "about", "reason"), rows, "no dead letters")
    if len(found) == limit:
        typer.echo(f"there may be more: --after {found[-1].id[:SHORT_ID]}", err=True)


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="the dead letter's id, or its beginning", metavar="ID")],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show one dead letter: what it is about, why it is here, and what it holds (a long value: its beginning).

    Example: upon deadletters show 3f2a9c1e
    """
    from upon.cli.output import print_json

    with connect(home) as client:
        letter = client.deadletter(id)
    if as_json:
        print_json(letter)
    else:
        _print(letter)


@app.command()
def retry(
    ids: IdsArgument = None,
    *,
    rule: RuleOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    all_: AllOption = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Try dead letters again: the rule that could not fire fires for that event alone, and once, however often you ask.

    Example: upon deadletters retry --rule thumbnails --since 1d
    """
    from upon.cli.dealing import deal

    with connect(home) as client:
        choice = _choice(client, ids, since, until, rule=rule, reason=reason, all=all_)
        deal(client.retry_deadletters, choice, "tried again", as_json)


@app.command()
def drop(
    ids: IdsArgument = None,
    *,
    rule: RuleOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    all_: AllOption = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Be done with dead letters: they are no longer open; `list --status dropped` shows them.

    Example: upon deadletters drop 3f2a9c1e
    """
    from upon.cli.dealing import deal

    with connect(home) as client:
        choice = _choice(client, ids, since, until, rule=rule, reason=reason, all=all_)
        deal(client.drop_deadletters, choice, "dropped", as_json)


def _choice(
    client: Client, ids: list[str] | None, since: str | None, until: str | None, **filters: Any
) -> LetterChoice:
    from upon.api import LetterChoice

    return LetterChoice(
        ids=[_whole_id(client, id) for id in ids] if ids else None,
        since=moment(since, "--since"),
        until=moment(until, "--until"),
        **filters,
    )


def _whole_id(client: Client, id: str) -> str:
    return id if len(id) >= 36 else client.deadletter(id).id


def _print(letter: DeadLetterView) -> None:
    from rich.text import Text

    from upon.cli.output import console, when

    out = console()
    out.print(Text(letter.id, "bold"), Text(letter.status), soft_wrap=True)
    dealt = f"{when(letter.resolved)} by {letter.resolved_by}" if letter.resolved else ""
    facts = {
        "given up": f"{when(letter.at)} by {letter.part}",
        "rule": letter.rule,
        "event": letter.event_id,
        "function": letter.function,
        "site": letter.site,
        "from": letter.origin,
        letter.status: dealt,
        "key": letter.key,
        "size": f"{letter.size:,} bytes",
    }
    for name, fact in facts.items():
        if fact:
            out.print(Text(f"{name:<10}", "dim"), Text(fact), sep="", soft_wrap=True)
    for name, data in letter.headers.items():
        out.print(Text("header    ", "dim"), Text(f"{name}: {data}"), sep="", soft_wrap=True)
    out.print(Text(f"\n{letter.reason}\n", "red"), soft_wrap=True)
    out.print(Text(letter.value), soft_wrap=True)
