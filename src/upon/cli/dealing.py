"""Doing something with many dead letters or tasks: request by request, until all are done, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

from upon.api import Dealt, LetterChoice, NotDealt, TaskChoice

C = TypeVar("C", LetterChoice, TaskChoice)
TOLD = 20
"""How many refusals are printed."""


def deal(act: Callable[[C], Dealt], choice: C, done: str, as_json: bool) -> None:
    """Act on what is chosen and say what became of it; exit code 1 if something was refused.

    Args:
        act: deals with some of the choice.
        done: what was done with it, as a past participle.
    """
    import msgspec

    from upon.cli.output import SHORT_ID, print_json

    ids: list[str] = []
    refused: list[NotDealt] = []
    while True:
        answer = act(choice)
        ids += answer.ids
        refused += answer.refused
        if answer.after is None:
            break
        choice = msgspec.structs.replace(choice, after=answer.after)
    if as_json:
        print_json(Dealt(ids=ids, refused=refused))
    else:
        said = f"{len(ids):,} {done}" + (f", {len(refused):,} refused" if refused else "")
        typer.echo(said, err=bool(refused and not ids))
        for one in refused[:TOLD]:
            typer.echo(f"  {one.id[:SHORT_ID]}: {one.reason}", err=True)
        if len(refused) > TOLD:
            typer.echo(f"  … and {len(refused) - TOLD:,} more", err=True)
    if refused:
        raise typer.Exit(1)
