"""Times and ages on the command line: ``--since 2h`` and ``--since 2026-11-21T10:00:00+01:00`` alike."""

from __future__ import annotations

from typing import Annotated

import typer

SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="AGE|TIME", help="not older: an age such as 2h, or an RFC 3339 time")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="AGE|TIME", help="not newer, in the same form")]


def moment_ns(text: str | None, option: str) -> int | None:
    """Return an age or a time, given for `option`, in ns since the epoch; None if there is none.

    Raises:
        InputError: it is neither.
    """
    from upon.durations import DurationError, parse_past
    from upon.errors import InputError

    try:
        return None if text is None else parse_past(text)
    except DurationError as error:
        raise InputError(f"{option}: {error}") from None


def moment(text: str | None, option: str) -> str | None:
    """Return an age or a time as RFC 3339, UTC. Raises as `moment_ns`."""
    from upon.errors import InputError
    from upon.events import rfc3339

    found = moment_ns(text, option)
    try:
        return None if found is None else rfc3339(found)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"{option}: {text!r} is before all calendars") from error
