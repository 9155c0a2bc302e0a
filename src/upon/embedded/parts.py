"""The parts of a system on one machine, and the pure decisions of their supervisor: what to run, when to try again.

    kafka ◀── service, streams, dispatcher, sources          manager ──▶ dispatcher

All are started at once: a part waits by itself for what it needs, so that its imports and Kafka's start overlap.
They stop in the opposite order, Kafka last.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

KAFKA = "kafka"
PARTS = ("service", "streams", "dispatcher", "manager", "sources")
"""The parts that are ours, each run as `upon part NAME`."""
STATUS_ORDER = (KAFKA, "service", "streams", "dispatcher", "manager", "workers", "sources")

FIRST_DELAY = 0.1
"""Seconds before the first restart of a part that died."""
LONGEST_DELAY = 10.0
STEADY = 30.0
"""A part that was up for so many seconds is healthy: its next death counts as the first."""
GIVE_UP = 3
"""How often a part may die before it was ever ready; then `upon up` stops and says why."""
SAID_WHY = 2
"""Exit code of a part that stopped with an error of the tree: at its first start, trying again will not help."""
LASTING = 3
"""Exit code of a part that stopped with an error that does not pass by itself: a log of Kafka that is damaged."""
TAKEN = 4
"""Exit code of a part that found another program at its address."""
DOUBT = 60.0
"""Seconds that a part must be up after such an end before it counts as up: damage is met where reading comes to it."""
OPTIONAL = ("sources",)
"""Parts without which the others work: one of these that does not start is tried again now and then."""
STOPPED = (0, 143, -15)
"""Exit codes of a part that was told to stop (143: Java's way to say so)."""
ROOM = 64 * 1024 * 1024
"""Bytes: with less on its disk Kafka is not started, for it would end again at once, and the home counts as full."""


def command(part: str, home: str) -> list[str]:
    """Return the argv of one of our parts."""
    return [sys.executable, "-m", "upon", "part", part, "--home", home]


Then = Literal["again", "later", "give up"]
"""Start the part again after `Deaths.delay`; after the longest delay, as one that does not work; or end the system."""


ONLY_FOR = {
    "UPON_TOKEN": "service",
    "UPON_DATABASE": "service",
    "UPON_GLOBUS_CLIENT_SECRET": "sources",
    "NOTIFY_SOCKET": "",  # between us and who started us
}
"""Environment variables that one part alone gets from ours: what is in a process's environment can be read by whatever
runs as its user, functions included."""


def inherited(part: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a part gets of our environment."""
    return {name: value for name, value in environment.items() if ONLY_FOR.get(name, part) == part}


@dataclass(frozen=True, slots=True)
class Deaths:
    """How often a part died in a row, and whether it was ever ready: decides what comes next."""

    in_a_row: int = 0
    ever_ready: bool = False

    def died(self, ready_for: float | None) -> Deaths:
        """Take in a death.

        Args:
            ready_for: how long the part had been ready, s; None if it never became ready this time.
        """
        if ready_for is None:
            return Deaths(self.in_a_row + 1, self.ever_ready)
        return Deaths(1 if ready_for >= STEADY else self.in_a_row + 1, True)

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start: 0.1, 0.2, 0.4 … 10."""
        return min(FIRST_DELAY * 2.0 ** (max(self.in_a_row, 1) - 1), LONGEST_DELAY)

    def after(self, part: str, code: int | None) -> Then:
        """Return what to do about the last death.

        Args:
            part: its name.
            code: its exit code, negative for a signal; None: it could not even be started.
        """
        if self.ever_ready:
            return "later" if code == LASTING else "again"
        if code not in (SAID_WHY, LASTING, TAKEN) and self.in_a_row < GIVE_UP:
            return "again"
        return "later" if part in OPTIONAL else "give up"


def lacks_room(part: str, free: int) -> str:
    """Return why a part is not started now for want of room on the disk, empty if it is.

    Args:
        free: bytes free on the disk of the home.
    """
    if part != KAFKA or free >= ROOM:
        return ""
    return f"the disk of the home is full ({megabytes(free)} free, Kafka needs {megabytes(ROOM)}): waiting for room"


def describe_cut(partitions: list[str]) -> str:
    """Return what is to be said of logs of Kafka, TOPIC-NUMBER each, that had lost their end at its start."""
    return (
        f"the end of {', '.join(partitions)} is lost: these logs (kafka/data in the home) ended within a record, but "
        "Kafka had been stopped well. What stands before is kept. If you have a backup of kafka/data: `upon down`, "
        "restore it, `upon up`"
    )


def megabytes(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1024**3:.1f} GB" if count >= 1024**3 else f"{count // 1024**2} MB"


def describe_exit(code: int) -> str:
    """Return how a process ended, in words: its exit code or the signal's name."""
    import signal

    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def last_message(lines: Iterable[str]) -> str:
    """Return the last thing a part's log says that a person can read, empty if nothing."""
    import json

    found = ""
    for line in lines:
        text = line.strip()
        if text.startswith("{"):
            try:
                record = json.loads(text)
            except ValueError:
                continue
            if record.get("level") in ("error", "critical"):
                found = str(record.get("event", ""))
                if record.get("action") == "stop":  # the part's own word; what libraries say while it ends is not why
                    return found
        elif text and not line.startswith((" ", "\t")):
            found = text
    return found
