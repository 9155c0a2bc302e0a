"""What was done and begun already: read from `upon.results` when a dispatcher starts.

It keeps no state of its own that another machine could not rebuild. Where the last dispatcher had read to, and what
was open there, stands in the commit (`upon.kafka.positions.Beyond`); results are read from the first open record on,
for that is when the first of them can have been written. Two things can come later than that: what a client sends once
more after its connection broke (`RESENT`), and what a rule fires once more for an event that is read again. The event
says how old it is: while results are read from `LOOK_BACK` on, beside the work, invocations of older events wait.

Not here: following the results (what this dispatcher writes, it knows).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from upon.dispatcher.decisions.past import Past
from upon.dispatcher.feeds import LOOK_BACK
from upon.kafka.follow import follow
from upon.kafka.positions import Position

RESENT = 900.0
"""Seconds in which a client sends again what it does not know to be taken."""
CLOCKS = 60.0
"""Seconds that the clocks of two brokers may differ by."""


def first_needed(starts: Iterable[tuple[Position, int]], now: float) -> float:
    """Return from when on (s since the epoch) results must be known before work begins.

    Args:
        starts: where each partition of the invocations is read on, and where it ends.
        now: s since the epoch.
    """
    since = now - RESENT
    for at, end in starts:
        if at.offset < end:
            since = min(since, now - LOOK_BACK if at.time is None else at.time / 1000 - CLOCKS)
    return max(since, now - LOOK_BACK)


async def past_of(kafka: str, topic: str, site: str, since: float) -> Past:
    """Return what is known of a site's work.

    Args:
        since: s since the epoch from which on results are read.

    Raises:
        KafkaUnavailable: no broker answers.
    """
    past = Past(int(since * 1e9))

    def take(record: Any) -> None:
        past.take(record.value or b"", site)

    at = max(1, int(since * 1000))
    await follow(kafka, f"upon-dispatcher-{site}-recovery", [topic], take, since=at, stop_at_end=True)
    return past


def horizon() -> float:
    """Return from when on (s since the epoch) results are read at all."""
    return time.time() - LOOK_BACK
