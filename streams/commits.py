"""The committed positions of the stream workers: checked before they read, kept with their time, watched.

Faust begins at what is committed and drops what has a lower offset than it has seen. A log that lost its end (a power
cut), or was made anew, would so have new events passed over in silence. Therefore: when a worker has its partitions,
before it reads them, what is committed is corrected where the log says otherwise; while it runs, a log that ends
before what was read, or is gone, ends the worker, and its replacement begins with the correction.

It is the worker, as a member of its group, that commits the correction: from anybody else Kafka takes none while the
group has members, and one that was killed, or lost its broker, stays one for a while. See `upon.kafka.positions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from upon.config import Settings
from upon.errors import KafkaUnavailable
from upon.kafka.admin import ensure_topics
from upon.kafka.positions import Position
from upon.kafka.reader import Reader, reading
from upon.kafka.settings import LOOK_MS
from upon.logs import get_logger

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

ANSWER = 2.0
"""Seconds that Kafka has to answer a look at the log; if it does not, it is away, and that is waited out."""
AGAIN = 0.5
"""Seconds until a correction that Kafka did not take is worked out anew."""
log = get_logger(__name__)

Commit = Callable[[Mapping[Any, Position]], Awaitable[bool]]


async def correct(settings: Settings, group: str, commit: Commit) -> None:
    """Correct the committed positions that the log of the events does not have. Returns when Kafka has that.

    Args:
        commit: commits those of them that are the worker's own to say.

    Raises:
        KafkaUnavailable: no broker answers.
    """
    while True:
        wrong = await _wrong(settings, group)
        if not wrong or await commit(wrong):
            return
        await asyncio.sleep(AGAIN)  # the group is changing: whose partitions are they then, and where do they stand?


async def _wrong(settings: Settings, group: str) -> dict[Any, Position]:
    """Return the positions that stand in place of committed ones which the log does not have."""
    found: dict[Any, Position] = {}

    async def start(reader: Reader, partitions: list[Any]) -> Mapping[Any, Position]:
        found.update(await reader.committed(partitions))
        return found

    topic = settings.topics.events
    async with reading(settings.need_kafka(), "upon-streams-check", [topic], group=group, start=start) as reader:
        return {one: at for one, at in reader.positions.items() if one in found and at.offset != found[one].offset}


async def watch(settings: Settings, consumer: AIOKafkaConsumer, read_to: Callable[[], Mapping[Any, int]]) -> None:
    """Look at the log of the events now and then, for ever.

    Args:
        consumer: to ask with, assigned nothing.
        read_to: the next offset to be read, by partition.

    Raises:
        KafkaUnavailable: the log is gone, or ends before what was read.
    """
    from aiokafka.errors import KafkaError

    topic = settings.topics.events
    while True:
        await asyncio.sleep(LOOK_MS / 1000)
        try:
            async with asyncio.timeout(ANSWER):
                there = topic in await consumer.topics()
                read = {(one.topic, one.partition): offset for one, offset in read_to().items()}
                ends = await consumer.end_offsets(_places(read)) if there else {}
        except (KafkaError, TimeoutError, OSError):
            continue
        if not there:
            specs = settings.topics.shared(settings.partitions)
            await ensure_topics(settings.need_kafka(), specs, settings.replication)
            raise KafkaUnavailable(f"topic {topic} was gone and is made anew; this worker begins anew with it")
        for one, end in ends.items():
            if end < read[one.topic, one.partition]:
                raise KafkaUnavailable(
                    f"topic {topic}, partition {one.partition} ends at {end}, and {read[one.topic, one.partition]} "
                    "was read already: it lost its end or was made anew; this worker begins anew with what there is"
                )


def _places(read: Mapping[tuple[str, int], int]) -> list[Any]:
    from aiokafka import TopicPartition

    return [TopicPartition(*place) for place in read]


def committing(app: Any) -> Commit:
    """Return what commits positions with their times for a Faust app; it returns whether Kafka took them."""
    from aiokafka import TopicPartition
    from aiokafka.errors import KafkaError

    async def commit(positions: Mapping[Any, Position]) -> bool:
        thread, mine = app.consumer._thread, app.consumer.assignment()
        offsets = {
            TopicPartition(one.topic, one.partition): (at.offset, at.metadata())
            for one, at in positions.items()
            if one in mine
        }
        try:
            if offsets:
                await thread.call_thread(thread._ensure_consumer().commit, offsets)
        except KafkaError as error:
            log.info(
                "records will be read again, Kafka did not take their offsets", action="commit", reason=repr(error)
            )
            return False
        return True

    return commit
