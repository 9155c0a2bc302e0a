"""The options of a kind of source as a Markdown table, from its `Config`; a test holds `docs/sources.md` to it.

python -m upon.triggers.options filesystem
"""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from upon.durations import format_duration, parse_duration
from upon.triggers.registry import find_source

SHARED = ("name", "kind")


def options_table(kind: str) -> str:
    """Return the table for a kind; the options that all kinds share are left out.

    Raises:
        ConfigError: there is no such kind.
    """
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for name, field in find_source(kind).Config.model_fields.items():
        if name not in SHARED:
            rows.append(f"| `{name}` | {_default(field)} | {_meaning(field)} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.default
    if any(getattr(extra, "func", None) is parse_duration for extra in field.metadata):
        return f"`{format_duration(value)}`"
    if isinstance(value, tuple):
        return " ".join(f"`{item}`" for item in value) or "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    listed = f" ({', '.join(choices)})" if choices and not all(c in (field.description or "") for c in choices) else ""
    return f"{field.description}{listed}"


if __name__ == "__main__":
    print(options_table(sys.argv[1]))
