"""Commits offsets, the newest only, a few times a second at most.

A commit that is lost costs nothing but a look into the set of what is done: the state machine says what may be
committed, and repeats itself with every step forward.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from upon.logs import get_logger

if TYPE_CHECKING:
    from aiokafka import TopicPartition

    from upon.kafka.positions import Position
    from upon.kafka.reader import Reader

log = get_logger(__name__)

COMMIT_EVERY = 0.25
"""Seconds between two commits, at least."""


class Commits:
    """Offsets of one topic on their way to Kafka.

    Args:
        reader: whose group's offsets they are.
        topic: the topic's name.
    """

    def __init__(self, reader: Reader, topic: str) -> None:
        self._reader, self._topic = reader, topic
        self._waiting: dict[TopicPartition, Position] = {}
        self._task: asyncio.Task[None] | None = None

    def put(self, offsets: dict[int, int]) -> None:
        """Let these be committed soon: the next to read, by partition."""
        from aiokafka import TopicPartition

        for number, offset in offsets.items():
            partition = TopicPartition(self._topic, number)
            self._waiting[partition] = self._reader.at(partition, offset)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._later())

    async def _later(self) -> None:
        while self._waiting:
            await asyncio.sleep(COMMIT_EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Commit what waits; if Kafka refuses, it waits on."""
        from aiokafka.errors import KafkaError

        offsets, self._waiting = self._waiting, {}
        try:
            if offsets:
                await self._reader.commit(offsets)
        except KafkaError as error:
            log.warning(f"offsets were not committed: {error!r}; tried again", action="commit")
            self._waiting = {**offsets, **self._waiting}

    def cancel(self) -> None:
        """Stop committing by itself."""
        if self._task is not None:
            self._task.cancel()
