"""Follow a topic from its beginning (or a time): read what is there, then go on as records arrive.

For the compacted topics (registry, sites), and for a dispatcher that rebuilds what is done from the results.
Guarantee: every record is handed over in the order of its partition, at least once; `caught_up` is set when all
that was there at the start has been. Not here: consumer groups and commits; a follower keeps no position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from upon.errors import KafkaUnavailable
from upon.kafka.clients import async_consumer

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord


async def follow(
    kafka: str,
    client_id: str,
    topics: Iterable[str],
    on_record: Callable[[ConsumerRecord[Any, Any]], None],
    *,
    caught_up: asyncio.Event | None = None,
    since: int = 0,
    stop_at_end: bool = False,
) -> None:
    """Hand every record of `topics` to `on_record`, until cancelled.

    Args:
        kafka: bootstrap address.
        client_id: for the broker's logs.
        topics: their names; they must exist.
        on_record: called in the event loop; must be quick and must not raise.
        caught_up: set once everything that was there at the start has been handed over.
        since: begin with records of this time, ms since the epoch; 0 = the beginning.
        stop_at_end: return when caught up, in place of going on.

    Raises:
        KafkaUnavailable: no broker answers at the start, or a topic does not exist.
    """
    async with async_consumer(kafka, client_id) as consumer:
        ends = await _assign(consumer, list(topics), since)
        while True:
            if ends and all([await consumer.position(p) >= end for p, end in ends.items()]):
                ends = {}
            if not ends:
                if caught_up is not None:
                    caught_up.set()
                if stop_at_end:
                    return
            batches = await consumer.getmany(timeout_ms=1000)
            for records in batches.values():
                for record in records:
                    on_record(record)


async def _assign(consumer: AIOKafkaConsumer, topics: list[str], since: int) -> dict[Any, int]:
    """Assign all partitions of `topics`, seek to `since`, and return each partition's end as it is now."""
    from aiokafka import TopicPartition

    await consumer._client.set_topics(topics)
    partitions = []
    for topic in topics:
        found = consumer.partitions_for_topic(topic)
        if not found:
            raise KafkaUnavailable(f"topic {topic} does not exist; `upon up` creates the topics of a deployment")
        partitions += [TopicPartition(topic, number) for number in found]
    # Asked before partitions are assigned: a fetch that waits for records (up to 1 s) would hold these up behind it.
    begins = await consumer.beginning_offsets(partitions)
    ends = await consumer.end_offsets(partitions)
    if since:
        at_time = await consumer.offsets_for_times(dict.fromkeys(partitions, since))
        begins = {p: found.offset if (found := at_time.get(p)) else ends[p] for p in partitions}
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, begins[partition])
    return {p: end for p, end in ends.items() if end > begins[p]}
