"""How error messages about rules name values and suggest names."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from typing import Any


def article(value: Any) -> str:
    """Return what a value is, in the words of YAML: ``a list``, ``the number 3``, ``nothing (null)``."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {_short(value)}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` when a known name is close, else nothing."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unexpected(error: BaseException) -> str:
    """Return what a dead letter says of an exception that nobody foresaw."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__}: {error} ({where.name}, line {where.lineno}): please report it"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
