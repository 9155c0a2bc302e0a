"""Reading parts of Kafka's logs by their place: what is to be looked at again, a window of what is past.

Not here: following topics (`upon.kafka.follow`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError

from upon.errors import KafkaUnavailable
from upon.kafka.clients import async_consumer, unavailable
from upon.kafka.ends import Ends
from upon.kafka.reader import damaged

TIMEOUT = 20.0
"""Seconds that Kafka has for the next record."""
LOOK = 1.0
"""Seconds after which it is looked whether there is anything before the end: not every offset has a record."""
Window = tuple[TopicPartition, int, int]
"""A part of a partition's log: from an offset up to another, which is not included."""


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
            KafkaDamaged: a record cannot be read.
        """
        partitions = {partition for partition, _ in wanted}
        if not partitions:
            return {}
        begins = await self._ends.begins(partitions, TIMEOUT)
        ends = await self._ends.ends(partitions, TIMEOUT)
        there = [
            (partition, offset, offset + 1)
            for partition, offset in sorted(wanted)
            if begins[partition.topic, partition.partition] <= offset < ends[partition.topic, partition.partition]
        ]
        found: dict[tuple[TopicPartition, int], ConsumerRecord] = {}
        async for (partition, offset, _), records in self.windows(there):
            found[partition, offset] = records[0]
        return found

    async def windows(self, wanted: list[Window]) -> AsyncIterator[tuple[Window, list[ConsumerRecord[Any, Any]]]]:
        """Yield the records of windows, which must be within the log, in order, some at a time. Raises as `read`."""
        if not wanted:
            return
        async with async_consumer(self._kafka, self._client_id) as consumer:
            for window in wanted:
                async for records in self._window(consumer, *window):
                    yield window, records

    async def _window(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, first: int, end: int
    ) -> AsyncIterator[list[ConsumerRecord[Any, Any]]]:
        consumer.assign([partition])
        consumer.seek(partition, first)
        heard = time.monotonic()
        while first < end:
            try:
                async with asyncio.timeout(TIMEOUT):
                    some = await consumer.getmany(partition, timeout_ms=int(LOOK * 1000), max_records=end - first)
                    first = await consumer.position(partition)
            except (CorruptRecordException, ValueError, TypeError, LookupError, AssertionError) as error:
                raise damaged(partition, first, str(error) or type(error).__name__) from error
            except (KafkaError, TimeoutError) as error:
                raise unavailable(self._kafka, error or f"no record within {TIMEOUT:.0f} s") from error
            if first >= end:  # before the consumer asks for more and waits for it: that would hold up the next window
                consumer.pause(partition)
            if records := [one for one in some.get(partition, []) if one.offset < end]:
                heard = time.monotonic()
                yield records
            elif first < end and time.monotonic() - heard > TIMEOUT:
                raise KafkaUnavailable(f"Kafka did not give {partition.topic}/{partition.partition}/{first}")
