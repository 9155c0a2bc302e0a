"""What the part `sources` says of each source, for `upon sources list` and `upon status`.

    HOME/sources/report.json      {"pid": of the part, "file": …, "sources": [{name, kind, state, …}]}

Written whenever a state changes, and at most once a second while events pass; a disk that is full leaves it old, and
nothing else. Whoever reads it must ask whether the process `pid` still is there: `read` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import psutil

from upon.config import write_private

FILE = "report.json"
State = Literal["starting", "running", "failing", "ended", "wrong", "stopped"]


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one source."""

    name: str
    kind: str = ""
    state: State  # failing: it is tried again; wrong: it cannot run as it is written; ended: no more input
    since: int = 0  # when it came into this state, ns since the epoch
    reason: str = ""  # why it is failing or wrong
    events: int = 0  # events of it that Kafka has, since the part was started
    last_event: int = 0  # when Kafka had the newest one, ns since the epoch


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The state of all sources, as the part last said it."""

    pid: int
    file: str = ""  # the sources file; empty: there is none
    problem: str = ""  # what was applied as a whole cannot be read; what ran goes on
    sources: tuple[SourceReport, ...] = ()


def write(home: Path, report: Report) -> None:
    """Write the report.

    Raises:
        OSError: it cannot be written; the old one stands.
    """
    (home / "sources").mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(home / "sources" / FILE, msgspec.json.encode(report).decode())


def read(home: Path) -> Report | None:
    """Return the last report; None if there is none. All sources of a part that has ended are `stopped`."""
    try:
        report = msgspec.json.decode((home / "sources" / FILE).read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError):
        return None
    if psutil.pid_exists(report.pid):
        return report
    stopped = tuple(
        one if one.state == "wrong" else msgspec.structs.replace(one, state="stopped") for one in report.sources
    )
    return msgspec.structs.replace(report, sources=stopped)
