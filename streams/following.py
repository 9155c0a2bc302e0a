"""The topics that every stream worker follows, read from their beginning: what it knows, kept up while it runs.

    upon.registry ─▶ catalogue: rules, functions   ─▶ barrier: what changed while records were judged
    upon.sites    ─▶ catalogue: sites
    upon.choices  ─▶ choices: which of several sites work went to

Guarantee: what is given out has read all that was there at the start. No position is committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from upon.config import Settings
from upon.kafka.follow import follow
from upon.kafka.progress import Progress
from upon.streams.barrier import Barrier
from upon.streams.catalogue import Catalogue
from upon.streams.choices import Choices


@dataclass(frozen=True, slots=True)
class Known:
    """What a stream worker knows. `registry_read`: how far it has taken in the registry."""

    catalogue: Catalogue
    choices: Choices
    barrier: Barrier[Any]
    registry_read: Progress


@asynccontextmanager
async def following(settings: Settings, client_id: str) -> AsyncIterator[tuple[Known, asyncio.Task[None]]]:
    """What is known, and the task that keeps it up.

    Raises:
        KafkaUnavailable: no broker answers at the start.
    """
    topics = settings.topics
    barrier: Barrier[Any] = Barrier()
    catalogue, choices, read = Catalogue(barrier.changed), Choices(topics.choices), Progress()
    caught_up = asyncio.Event()

    def take(record: Any) -> None:
        if record.topic == topics.registry:
            catalogue.take_registry(record.key or b"", record.value, record.timestamp * 1_000_000)
            read.took(record.offset)
        elif record.topic == topics.choices:
            choices.take(record.value, record.offset)
        else:
            catalogue.take_site(record.value, time.time_ns() if caught_up.is_set() else record.timestamp * 1_000_000)

    followed = [topics.registry, topics.sites, topics.choices]
    task = asyncio.create_task(
        follow(settings.need_kafka(), client_id, followed, take, caught_up=caught_up, spec_of=topics.spec_of)
    )
    reading = asyncio.create_task(caught_up.wait())
    try:
        await asyncio.wait({task, reading}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield Known(catalogue, choices, barrier, read), task
    finally:
        reading.cancel()
        task.cancel()
        await asyncio.gather(reading, task, return_exceptions=True)
