"""Reading single records of Kafka by their place: what a task or an event was that is to be looked at again.

Not here: following topics (`upon.kafka.follow`).
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from upon.errors import KafkaUnavailable
from upon.kafka.clients import async_consumer, unavailable
from upon.kafka.ends import Ends

TIMEOUT = 20.0
"""Seconds that Kafka has for one record."""


class Places:
    """Reads records by topic, partition and offset; connects for as long as it is asked.

    Args:
        kafka: bootstrap address.
        client_id: for the broker's logs.
        ends: where partitions begin and end.
    """

    def __init__(self, kafka: str, client_id: str, ends: Ends) -> None:
        self._kafka, self._client_id, self._ends = kafka, client_id, ends

    async def read(self, wanted: set[tuple[TopicPartition, int]]) -> dict[tuple[TopicPartition, int], ConsumerRecord]:
        """Return the records at these places; those that Kafka no longer has are left out.

        Raises:
            KafkaUnavailable: no broker answers.
        """
        partitions = {partition for partition, _ in wanted}
        if not partitions:
            return {}
        begins = await self._ends.begins(partitions, TIMEOUT)
        ends = await self._ends.ends(partitions, TIMEOUT)
        there = {
            (partition, offset)
            for partition, offset in wanted
            if begins[partition.topic, partition.partition] <= offset < ends[partition.topic, partition.partition]
        }
        found: dict[tuple[TopicPartition, int], ConsumerRecord] = {}
        async with async_consumer(self._kafka, self._client_id) as consumer:
            for partition, offset in sorted(there):
                if (record := await self._one(consumer, partition, offset)) is not None:
                    found[partition, offset] = record
        return found

    async def _one(self, consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> ConsumerRecord | None:
        consumer.assign([partition])
        consumer.seek(partition, offset)
        try:
            async with asyncio.timeout(TIMEOUT):
                batches = await consumer.getmany(partition, timeout_ms=int(TIMEOUT * 1000), max_records=1)
        except TimeoutError as error:
            raise KafkaUnavailable(f"Kafka did not give {partition.topic}/{partition.partition}/{offset}") from error
        except KafkaError as error:
            raise unavailable(self._kafka, error) from error
        records = batches.get(partition, [])
        return records[0] if records and records[0].offset == offset else None
