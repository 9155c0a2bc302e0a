"""Options that many commands share, and the client they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from upon.sdk.client import Client

HomeOption = Annotated[Path | None, typer.Option("--home", help="the folder of the system (default: UPON_HOME)")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else")]


def connect(home: Path | None, patience: float | None = None) -> Client:
    """Return a client of the system in `home`; `patience`: s that it tries before it says that nobody answers."""
    from upon.sdk.client import PATIENCE, Client

    return Client(home=home, patience=PATIENCE if patience is None else patience)


def value(text: str) -> Any:
    """Return a value as a user types it: JSON if it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def json_object(text: str, option: str) -> dict[str, Any]:
    """Return the JSON object that an option takes.

    Raises:
        InputError: it is none; the message says where.
    """
    from upon.errors import InputError

    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{option}: not JSON: {error}: {text}") from error
    if not isinstance(found, dict):
        raise InputError(f'{option}: must be a JSON object such as {{"mass": 3}}, not {text}')
    return found
