"""Producers and consumers, started and ready, made from `upon.kafka.settings`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from upon.errors import KafkaUnavailable
from upon.kafka import settings
from upon.logs import get_logger

CLOSE_TIMEOUT = 1.0
"""Seconds that a producer gets to close; one whose broker is away would wait for it."""
log = get_logger(__name__)

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from kafka import KafkaProducer


def unavailable(kafka: str, error: object) -> KafkaUnavailable:
    """Return the error for a broker that does not answer, with the remedy."""
    return KafkaUnavailable(f"no Kafka answers at {kafka} ({error}); is `upon up` running? `upon doctor` looks into it")


async def start_producer(kafka: str, client_id: str) -> AIOKafkaProducer:
    """Return a started aiokafka producer (idempotent, acks=all); stop it yourself.

    Raises:
        KafkaUnavailable: no broker answers.
    """
    from aiokafka import AIOKafkaProducer
    from aiokafka.errors import KafkaError

    producer = AIOKafkaProducer(**settings.async_producer(kafka, client_id))
    try:
        await producer.start()
    except KafkaError as error:
        await producer.stop()
        raise unavailable(kafka, error) from error
    return producer


@asynccontextmanager
async def async_producer(kafka: str, client_id: str) -> AsyncIterator[AIOKafkaProducer]:
    """A started aiokafka producer (idempotent, acks=all), flushed and stopped at the end.

    Raises:
        KafkaUnavailable: no broker answers.
    """
    producer = await start_producer(kafka, client_id)
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def async_consumer(
    kafka: str, client_id: str, topics: Iterable[str] = (), group: str | None = None, reset: str = "earliest"
) -> AsyncIterator[AIOKafkaConsumer]:
    """A started aiokafka consumer that commits by hand.

    Args:
        topics: what it subscribes to; none: assign partitions yourself.
        group: consumer group; None: no group, no committed offsets.
        reset: where it begins if the log does not have its position; ``none``: it raises.

    Raises:
        KafkaUnavailable: no broker answers.
    """
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError

    consumer = AIOKafkaConsumer(*topics, **settings.async_consumer(kafka, client_id, group, reset))
    try:
        await consumer.start()
    except KafkaError as error:
        await consumer.stop()
        raise unavailable(kafka, error) from error
    task = asyncio.current_task()
    asked = task.cancelling() if task else 0
    try:
        yield consumer
    finally:
        # aiokafka's `stop` lets out the cancellation of tasks that it cancelled itself, and swallows one that is ours.
        with suppress(asyncio.CancelledError):
            await consumer.stop()
    if task and task.cancelling() > asked:
        raise asyncio.CancelledError


def sync_producer(kafka: str, client_id: str) -> KafkaProducer:
    """A kafka-python producer (idempotent, acks=all); close it yourself.

    Raises:
        KafkaUnavailable: no broker answers.
    """
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    try:
        return KafkaProducer(**settings.sync_producer(kafka, client_id))
    except KafkaError as error:
        raise unavailable(kafka, error) from error


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Close a producer, within `CLOSE_TIMEOUT`, whatever its broker does."""
    try:
        await asyncio.wait_for(producer.stop(), CLOSE_TIMEOUT)
    except Exception as error:  # a broker that is away, however it shows: the connection is dropped either way
        log.debug("a producer did not close cleanly", action="produce", error=repr(error))
