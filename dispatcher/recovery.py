"""What is done already: the ids in `upon.results`, read once when a dispatcher starts.

It keeps no state of its own that another machine could not rebuild. Read back is `LOOK_BACK` (feeds), and the set
is bounded (`DoneIds`): what comes again later than that is run again. A result is read without its payload.

Not here: following the results (what this dispatcher writes, it knows).
"""

from __future__ import annotations

import time
from typing import Any

from msgspec import Struct

from upon.dispatcher.done import DoneIds
from upon.dispatcher.feeds import LOOK_BACK
from upon.errors import InputError
from upon.kafka.follow import follow
from upon.messages import FORMAT, decode


class _Id(Struct):
    id: str


class _Ids(Struct):
    """`ResultBatch` as far as it is needed here; msgspec passes over the rest without building it."""

    site: str
    results: tuple[_Id, ...] = ()
    format: int = FORMAT


def ids_of(value: bytes, site: str) -> tuple[str, ...]:
    """Return the ids of a results record if it is of `site`; none if it is unreadable."""
    try:
        batch = decode(value, _Ids)
    except InputError:
        return ()
    return tuple(result.id for result in batch.results) if batch.site == site else ()


async def done_ids(kafka: str, topic: str, site: str, look_back: float = LOOK_BACK) -> DoneIds:
    """Return the ids of `site` whose results are in Kafka.

    Args:
        look_back: s before now from which on results are read.

    Raises:
        KafkaUnavailable: no broker answers.
    """
    done = DoneIds()

    def take(record: Any) -> None:
        for id in ids_of(record.value or b"", site):
            done.add(id)

    since = max(1, int((time.time() - look_back) * 1000))
    await follow(kafka, f"upon-dispatcher-{site}-recovery", [topic], take, since=since, stop_at_end=True)
    return done
