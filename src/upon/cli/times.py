"""Times and ages on the command line: ``--since 2h`` and ``--since 2026-11-21T10:00:00+01:00`` alike."""

from __future__ import annotations

from typing import Annotated

import typer

SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="AGE|TIME", help="not older: an age such as 2h, or an RFC 3339 time")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="AGE|TIME", help="not newer, in the same form")]


def moment(text: str | None, option: str) -> str | None:
    """Return an age or a time as RFC 3339, UTC; None if there is none.

    Raises:
        InputError: it is neither.
    """
    import time
    from datetime import UTC, datetime

    from upon.durations import DurationError, parse_duration
    from upon.errors import InputError
    from upon.events import rfc3339

    if text is None:
        return None
    try:
        return rfc3339(time.time_ns() - int(parse_duration(text) * 1e9))
    except (DurationError, OverflowError, OSError):
        pass
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo is not None else found.astimezone()  # as the user's clock has it
        return found.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{option}: {text!r} is no age such as 30m or 2d, and no time such as 2026-11-21T10:00"
        ) from error
