"""`upon logs`: what the parts of this machine's system have logged."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

PAUSE = 0.2
"""Seconds between two looks at a log that is followed."""
HIDDEN = ("timestamp", "level", "event", "part", "action", "module", "logger", "exception")
"""Fields of a log line that are not shown after its sentence: they are shown before it, or say nothing to people."""
END = 1024 * 1024
"""Bytes at the end of a log in which its last lines are looked for."""


def logs(
    part: Annotated[
        str | None, typer.Argument(help="kafka, service, streams, dispatcher, manager, sources or up (default: all)")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until Ctrl-C")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="how many lines of each part's end")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="lines as they stand in the log")] = False,
    home: Annotated[Path | None, typer.Option(help="the folder of this system (default: UPON_HOME)")] = None,
) -> None:
    """Show the end of the parts' logs, by time, and with --follow what comes. They stand in HOME/logs.

    Example: upon logs dispatcher --follow
    """
    from upon.config import Home
    from upon.errors import InputError

    place = Home(home)
    files = {path.stem: path for path in sorted(place.logs.glob("*.log"))}
    if (kafka := place.kafka / "logs" / "kafka.0.log").exists():  # what Kafka logs; the other is what its JVM prints
        files["kafka"] = kafka
    if part is not None:
        if part not in files:
            raise InputError(f"no log of {part!r} in {place.logs}: there are {', '.join(files) or 'none'}")
        files = {part: files[part]}
    with contextlib.ExitStack() as stack:
        opened: dict[str, BinaryIO] = {name: stack.enter_context(path.open("rb")) for name, path in files.items()}
        ends = [(name, line) for name, file in opened.items() for line in last_lines(file, lines)]
        if part is None:
            ends.sort(key=lambda end: stamp(end[1]))
        for name, line in ends:
            typer.echo(line if as_json else shown(name, line))
        with contextlib.suppress(KeyboardInterrupt):
            while follow:
                for name, line in _new_lines(opened, files):
                    typer.echo(line if as_json else shown(name, line))
                time.sleep(PAUSE)


def last_lines(file: BinaryIO, count: int) -> list[str]:
    """Return the last lines of a file, which then stands at its end."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - END))
    lines = file.read().decode(errors="replace").splitlines()
    if size > END:
        del lines[:1]  # its beginning is not there
    return lines[len(lines) - count :] if count < len(lines) else lines


def stamp(line: str) -> str:
    """Return the time that a line carries, as text that sorts; empty if it has none."""
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(line).get("timestamp", ""))
    return line[:30] if line[:2] == "20" else ""


def shown(part: str, line: str) -> str:
    """Return a line of a log for people: time, part, level if it matters, sentence, and what it is about."""
    try:
        record = json.loads(line)
        sentence = record["event"]
    except (ValueError, TypeError, KeyError):
        return f"{part:<10} {line}"
    level = record.get("level", "info")
    about = " ".join(f"{key}={value}" for key, value in record.items() if key not in HIDDEN)
    mark = "" if level in ("info", "debug") else f"{level}: "
    told = f"{str(record.get('timestamp', ''))[:23]} {part:<10} {mark}{sentence}{'  ' + about if about else ''}"
    for failure in record.get("exception") or ():
        told += f"\n    {failure.get('exc_type')}: {failure.get('exc_value')}" if isinstance(failure, dict) else ""
    return told


def _new_lines(opened: dict[str, BinaryIO], files: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """What has been written since; a log that was moved away is read to its end, then its successor."""
    for name, file in list(opened.items()):
        while line := file.readline():
            if not line.endswith(b"\n"):  # the rest comes later
                file.seek(-len(line), os.SEEK_CUR)
                break
            yield name, line.decode(errors="replace").rstrip("\n")
        with contextlib.suppress(FileNotFoundError):
            there, here = files[name].stat(), os.fstat(file.fileno())
            if there.st_ino != here.st_ino:
                opened[name] = files[name].open("rb")
                file.close()
            elif there.st_size < file.tell():
                file.seek(0)
