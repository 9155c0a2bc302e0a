"""Durations as people write them in YAML and on the command line: ``500ms``, ``2s``, ``30m``, ``1h30m``, ``7d``.

One parser for rules, sources and settings, so that a duration means the same everywhere. In code a duration is
always a float of seconds. A moment in the past is a duration ago, or a date and time. Not here: months and years,
which have no fixed length.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from datetime import UTC, datetime, timedelta

from upon.errors import InputError

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TERM = r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)"
_DURATION = re.compile(rf"(?:{_TERM}\s*)+")
_FINDER = re.compile(_TERM)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DurationError(InputError, ValueError):
    """Not a duration. (A ValueError as well, so that a pydantic validator reports it at its field.)"""


def parse_duration(value: str | float) -> float:
    """Return a duration in seconds.

    Args:
        value: a number of seconds, or a number and a unit (ms, s, m, h, d), or several such terms: ``1h30m``.

    Raises:
        DurationError: something else, negative, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _refused(value)
    if not isinstance(value, str):
        if not math.isfinite(value) or value < 0:
            raise _refused(value)
        return float(value)
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise _refused(value)
    return math.fsum(float(number) * UNITS[unit] for number, unit in _FINDER.findall(text))


def parse_timeout(value: str | float) -> float:
    """Return the seconds, more than 0, that something may take; `value` as `parse_duration`.

    Raises:
        DurationError: it is no duration, or none at all.
    """
    try:
        seconds = parse_duration(value)
    except DurationError as error:
        raise DurationError(f"timeout: {error}") from None
    if not seconds:
        raise DurationError(f"timeout: must be more than 0 s, not {value}")
    return seconds


def format_duration(seconds: float) -> str:
    """Return seconds as `parse_duration` reads them, in the largest unit that divides them: ``1800`` → ``30m``.

    A part of a millisecond is rounded away.
    """
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        size = round(UNITS[unit] * 1000)
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _refused(value: object) -> DurationError:
    return DurationError(
        f"{value!r} is not a duration: write a number of seconds, or one with a unit, such as 500ms, 2s, 30m, 1h, 7d"
    )


def parse_past(text: str, now_ns: int | None = None) -> int:
    """Return a moment in the past as people write it on the command line, in ns since the epoch.

    Args:
        text: a duration ago (``30m``, ``7d``), or a date with or without a time, RFC 3339; without an offset it is
            local time.
        now_ns: default now.

    Raises:
        DurationError: it is neither.
    """
    with contextlib.suppress(ValueError, OverflowError):  # a DurationError is a ValueError: it may be a date
        return (time.time_ns() if now_ns is None else now_ns) - round(parse_duration(text) * 1e9)
    try:
        return (datetime.fromisoformat(text.strip()).astimezone(UTC) - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError, OSError):
        raise DurationError(
            f"{text!r} is no moment in the past: write how long ago, such as 30m or 7d, or a date and time such as "
            "2026-03-01T12:00:00Z"
        ) from None
