"""What the pool decides, as data: the manager carries it out."""

from __future__ import annotations

from typing import NamedTuple

from upon.dispatcher.protocol import Assignment, Begun, Death, Outcome
from upon.endpoint.channel import ToWorker


class Fork(NamedTuple):
    """Start a worker."""

    worker: int


class Give(NamedTuple):
    """Send a worker tasks (or code), then the tasks' tokens."""

    worker: int
    messages: list[ToWorker]
    seqs: list[int]  # of the tasks among them


class Reclaim(NamedTuple):
    """Read what tokens the worker has not read, and tell the pool at once (`Pool.reclaimed`)."""

    worker: int


class Kill(NamedTuple):
    """Kill the worker's process group."""

    worker: int


class Ended(NamedTuple):
    """An attempt has an outcome."""

    outcome: Outcome


class Died(NamedTuple):
    """An attempt's worker died under it."""

    death: Death


class Slow(NamedTuple):
    """An attempt runs for `STARTED_AFTER` seconds now."""

    begun: Begun


class Back(NamedTuple):
    """These have not begun, and will not here: they go back to the dispatcher."""

    assignments: list[Assignment]


class Lack(NamedTuple):
    """A function's code is not here."""

    code: str


Instruction = Fork | Give | Reclaim | Kill | Ended | Died | Slow | Back | Lack
