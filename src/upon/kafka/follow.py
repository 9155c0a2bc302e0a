"""Follow topics from their beginning (or a time): read what is there, then go on as records arrive.

For the compacted topics (registry, sites), for a site's control topic, and for a dispatcher that rebuilds what is done
from the results. Guarantee: every record is handed over in the order of its partition, at least once; `caught_up` is
set when all that was there at the start has been. Not here: consumer groups and commits; a follower keeps no position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from upon.kafka.positions import Position
from upon.kafka.reader import Reader, reading
from upon.topics import TopicSpec

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

AT_ONCE = 50
"""Records that are handed over before others get their turn: a topic may hold hundreds of thousands."""


async def follow(
    kafka: str,
    client_id: str,
    topics: Iterable[str],
    on_record: Callable[[ConsumerRecord[Any, Any]], None],
    *,
    caught_up: asyncio.Event | None = None,
    since: int = 0,
    stop_at_end: bool = False,
    spec_of: Callable[[str], TopicSpec | None] = lambda _: None,
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
        spec_of: how a topic is made that is deleted meanwhile.

    Raises:
        KafkaUnavailable: no broker answers at the start, or a topic does not exist.
        KafkaDamaged: a record cannot be read.
    """

    async def start(reader: Reader, partitions: list[Any]) -> Mapping[Any, Position]:
        if not since:
            return {}
        at_time = await reader.consumer.offsets_for_times(dict.fromkeys(partitions, since))
        return {one: Position(found.offset if (found := at_time.get(one)) else reader.ends[one]) for one in partitions}

    async with reading(kafka, client_id, topics, start=start, spec_of=spec_of) as reader:
        ends = {one: end for one, end in reader.ends.items() if end > reader.positions[one].offset}
        while True:
            ends = {one: end for one, end in ends.items() if (at := reader.positions.get(one)) and at.offset < end}
            if not ends:
                if caught_up is not None:
                    caught_up.set()
                if stop_at_end:
                    return
            for records in await reader.next():
                for number, record in enumerate(records, 1):
                    on_record(record)
                    if number % AT_ONCE == 0:
                        await asyncio.sleep(0)
