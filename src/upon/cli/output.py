"""How the CLI shows things: tables for people, JSON for programs, times in local time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from upon.api import StoreUse, TaskError

COLOURS = {
    "succeeded": "green", "up": "green", "failed": "red", "down": "red", "cancelled": "yellow", "running": "cyan",
}  # fmt: skip
PIPE_WIDTH = 250
"""Characters of a line when stdout is no terminal."""
SHORT_ID = 8
"""Characters of a task's id in tables; `tasks show` takes them."""


def console() -> Console:
    """Return where tables go: stdout, wide if it is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_json(bodies: Any) -> None:
    """Print structs of the API, or plain data, as indented JSON."""
    import msgspec

    encoded = msgspec.json.encode(bodies)
    sys.stdout.write(msgspec.json.format(encoded, indent=2).decode() + "\n")


def print_line(body: Any) -> None:
    """Print one value as one line of JSON, at once."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(body).decode() + "\n")
    sys.stdout.flush()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """Print a table; `empty` instead, if it has no rows. A cell is text, or a rich object."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold" if heading in ("id", "name") else "ellipsis", no_wrap=heading == "id")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    out = console()
    out.print(table if table.row_count else Text(empty, "dim"))


def coloured(status: str) -> Any:
    """Return a status in its colour."""
    from rich.text import Text

    return Text(status, COLOURS.get(status, ""))


def print_error(error: TaskError, out: Console) -> None:
    """Print what a task failed with: one line, and the worker's traceback (or story) if there is one."""
    from rich.text import Text

    line = f"{error.type}: {error.message}"
    story = error.traceback.rstrip()
    if story.endswith(line):  # a traceback's last line is the error
        story = story.removesuffix(line).rstrip()
    if story:
        out.print(Text(story, "dim"), soft_wrap=True)
    out.print(Text(error.type, "bold red"), Text(": "), Text(error.message), sep="", soft_wrap=True)


def when(time: str | None) -> str:
    """Return an RFC 3339 time as local time; without the date if it is today's."""
    if not time:
        return ""
    moment = datetime.fromisoformat(time).astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def in_store(use: StoreUse) -> str:
    """Return how much of large arguments and results there is."""
    bound = f" of {_gibibytes(use.bound)}" if use.bound else ""
    return f"{_gibibytes(use.bytes)}{bound} in {use.payloads:,} payload{'' if use.payloads == 1 else 's'}, {use.place}"


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def milliseconds(value: float | None) -> str:
    """Return a duration for people."""
    if value is None:
        return ""
    if value < 1_000:
        return f"{value:.1f} ms"
    if value < 60_000:
        return f"{value / 1_000:.1f} s"
    return f"{int(value // 60_000)} min {value % 60_000 / 1_000:.0f} s"


def short(value: Any, length: int = 100) -> str:
    """Return a JSON value as one short line."""
    import json

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
