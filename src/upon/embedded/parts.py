"""The parts of a system on one machine, and the pure decisions of their supervisor: what to run, when to try again.

    kafka ◀── service, streams, dispatcher, sources          manager ──▶ dispatcher

All are started at once: a part waits by itself for what it needs, so that its imports and Kafka's start overlap.
They stop in the opposite order, Kafka last.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts meet, chosen before any of them starts."""

    kafka: str
    service: str  # HOST:PORT
    dispatcher: str  # tcp://HOST:PORT


def command(part: str, home: str) -> list[str]:
    """Return the argv of one of our parts."""
    return [sys.executable, "-m", "upon", "part", part, "--home", home]


def environment(addresses: Addresses) -> dict[str, str]:
    """Return what a part is told over its environment, beside its home."""
    return {
        "UPON_KAFKA": addresses.kafka,
        "UPON_LISTEN": addresses.service,
        "UPON_SERVICE": f"http://{addresses.service}",
        "UPON_DISPATCHER": addresses.dispatcher,
    }


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

    @property
    def hopeless(self) -> bool:
        """Whether the part died too often without ever having been ready."""
        return not self.ever_ready and self.in_a_row >= GIVE_UP


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
        elif text and not line.startswith((" ", "\t")):
            found = text
    return found
