"""How those who wait for a record in Kafka are told what became of it."""

from __future__ import annotations

import asyncio

from upon.errors import KafkaError
from upon.kafka.batches import Entry, Place


class TopicMissing(KafkaError):
    """A record is for a topic that does not exist."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic} does not exist")


def resolve(acked: asyncio.Future[Place], outcome: Place | Exception) -> None:
    """Resolve a future with a place, or with the reason why there will be none."""
    if acked.done():
        return
    if isinstance(outcome, Place):
        acked.set_result(outcome)
    else:
        acked.set_exception(outcome)


def tell(entry: Entry, outcome: Place | Exception) -> None:
    """Tell an entry, once."""
    then, entry.then = entry.then, None
    if then is not None:
        then(outcome)
