"""Commits how far the invocations are settled, a few times a second at most: the lowest open offset, and what is
settled beyond it (`upon.kafka.positions.Beyond`).

A commit that is lost costs the next dispatcher a look at the results: the state machine says where something was
settled, and repeats itself with every step forward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from upon.logs import get_logger

if TYPE_CHECKING:
    from aiokafka import TopicPartition

    from upon.kafka.offsets import Offsets
    from upon.kafka.positions import Position
    from upon.kafka.reader import Reader

log = get_logger(__name__)

COMMIT_EVERY = 0.25
"""Seconds between two commits, at least."""


class Commits:
    """Positions of one topic on their way to Kafka.

    Args:
        reader: whose group's positions they are.
        topic: the topic's name.
        offsets: the state machine's, by the partition's number.
    """

    def __init__(self, reader: Reader, topic: str, offsets: Offsets[int]) -> None:
        self._reader, self._topic, self._offsets = reader, topic, offsets
        self._waiting: set[int] = set()
        self._task: asyncio.Task[None] | None = None

    def put(self, partitions: Iterable[int]) -> None:
        """Let the positions of these partitions be committed soon."""
        self._waiting.update(partitions)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._later())

    async def _later(self) -> None:
        while self._waiting:
            await asyncio.sleep(COMMIT_EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Commit what waits; if Kafka refuses, it waits on."""
        from aiokafka import TopicPartition
        from aiokafka.errors import KafkaError

        numbers, self._waiting = self._waiting, set()
        try:
            if numbers:
                await self._reader.commit({(one := TopicPartition(self._topic, n)): self._at(one) for n in numbers})
        except KafkaError as error:
            log.warning(f"offsets were not committed: {error!r}; tried again", action="commit")
            self._waiting |= numbers

    def _at(self, partition: TopicPartition) -> Position:
        at = self._reader.at(partition, self._offsets.position(partition.partition))
        read_to = self._reader.positions.get(partition)
        if read_to is None or read_to.time is None:
            return at
        return replace(at, beyond=self._offsets.beyond(partition.partition, read_to.time))

    def cancel(self) -> None:
        """Stop committing by itself."""
        if self._task is not None:
            self._task.cancel()
