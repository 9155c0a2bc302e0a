"""Where partitions end, asked of Kafka on a connection of its own.

A consumer's own connection is taken by a fetch that waits for records, and Kafka answers a connection's requests
one after another: asked there, the end of a partition takes up to a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from upon.kafka.clients import unavailable


class Ends:
    """Asks for partition ends.

    Args:
        kafka: bootstrap address.
        consumer: a started consumer that is assigned nothing.
    """

    def __init__(self, kafka: str, consumer: AIOKafkaConsumer) -> None:
        self._kafka, self._consumer = kafka, consumer

    async def ends(self, partitions: Iterable[TopicPartition], timeout: float) -> dict[tuple[str, int], int]:
        """Return the offset that each partition's next record will have, by topic and partition.

        Raises:
            KafkaUnavailable: no answer within `timeout` s.
        """
        found = await self._ask(self._consumer.end_offsets(list(partitions)), timeout)
        return {(p.topic, p.partition): offset for p, offset in found.items()}

    async def begins(self, partitions: Iterable[TopicPartition], timeout: float) -> dict[tuple[str, int], int]:
        """Return the oldest offset of each partition. Raises as `ends`."""
        found = await self._ask(self._consumer.beginning_offsets(list(partitions)), timeout)
        return {(p.topic, p.partition): offset for p, offset in found.items()}

    async def at(self, partitions: Iterable[TopicPartition], time: int, timeout: float) -> dict[tuple[str, int], int]:
        """Return the offset of each partition's first record of a time (ms) or later; none: it is left out.

        Raises:
            KafkaUnavailable: as `ends`.
        """
        found = await self._ask(self._consumer.offsets_for_times(dict.fromkeys(partitions, time)), timeout)
        return {(p.topic, p.partition): one.offset for p, one in found.items() if one is not None}

    async def partitions(self, topics: Iterable[str], timeout: float) -> list[TopicPartition]:
        """Return the partitions of topics; one that does not exist has none. Raises as `ends`."""
        names = list(topics)
        missing = [name for name in names if not self._consumer.partitions_for_topic(name)]
        if missing:
            await self._ask(self._consumer._client.set_topics(names), timeout)
        return [TopicPartition(n, p) for n in names for p in sorted(self._consumer.partitions_for_topic(n) or ())]

    async def _ask(self, answer, timeout: float):  # type: ignore[no-untyped-def]
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except (KafkaError, TimeoutError) as error:
            raise unavailable(self._kafka, error or f"no answer within {timeout:g} s") from error
