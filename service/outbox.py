"""Producing to Kafka in a way that does not give up.

Guarantees: records of one sender keep their order; `acked` resolves once Kafka has the record (acks=all) and does
not fail because a broker is away: it waits. After a fault a record may be there twice: ids make that harmless.
A record that Kafka refuses for what it is (too large) fails at once.

aiokafka's producer retries by itself while a broker restarts; what it gives up on (no leader for a minute, a lost
sequence) leaves it unusable, so it is replaced then, and the record handed to the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
)

from upon.errors import KafkaUnavailable, PayloadTooLarge
from upon.kafka.clients import async_producer
from upon.logs import get_logger
from upon.messages import MAX_RECORD

RETRY_AFTER = 0.25
"""Seconds between attempts once aiokafka itself has given up."""
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Outgoing:
    topic: str
    value: bytes
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]
    acked: asyncio.Future[Place]


class Outbox:
    """One producer for all that the service writes.

    Args:
        kafka: bootstrap address.
    """

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._producer: AIOKafkaProducer | None = None
        self._stack = AsyncExitStack()
        self._replacing = asyncio.Lock()
        self._unacked: set[asyncio.Future[Place]] = set()
        self._retries: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaUnavailable: no broker answers.
        """
        self._producer = await self._stack.enter_async_context(async_producer(self._kafka, "upon-service"))

    async def send(
        self, topic: str, value: bytes, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> asyncio.Future[Place]:
        """Hand a record over, behind those handed over before; the future resolves when Kafka has it.

        Waits while the producer's buffer of that partition is full: this is the back-pressure.

        Raises:
            PayloadTooLarge: the record is over Kafka's limit.
        """
        record = _Outgoing(topic, value, key, headers, asyncio.get_running_loop().create_future())
        self._unacked.add(record.acked)
        record.acked.add_done_callback(self._unacked.discard)
        await self._hand_over(record)
        return record.acked

    async def put(
        self, topic: str, value: bytes, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Place:
        """Write a record and wait until Kafka has it. Raises as `send`."""
        return await (await self.send(topic, value, key, headers))

    async def flush(self, timeout: float) -> None:
        """Wait until all that was handed over is in Kafka, at most `timeout` seconds."""
        if self._unacked:
            await asyncio.wait(list(self._unacked), timeout=timeout)

    async def stop(self, timeout: float) -> None:
        """Wait until all is in Kafka, at most `timeout` seconds, and disconnect.

        What is not in Kafka by then was not acknowledged to anybody: its sender submits it again.
        """
        await self.flush(timeout)
        for task in self._retries:
            task.cancel()
        try:
            async with asyncio.timeout(1.0 if not self._unacked else 0.1):
                await self._stack.aclose()
        except TimeoutError:
            log.info("left Kafka without its answer", action="stop", unacked=len(self._unacked))

    async def _hand_over(self, record: _Outgoing) -> None:
        while True:
            producer = self._producer
            if producer is None:
                raise KafkaUnavailable("the service is not connected to Kafka: it is starting or stopping")
            try:
                sent = await producer.send(record.topic, record.value, key=record.key, headers=list(record.headers))
            except MessageSizeTooLargeError as error:
                record.acked.cancel()
                raise _too_large(record) from error
            except (KafkaError, IllegalStateError) as error:
                await self._replace(producer, error)
                continue
            sent.add_done_callback(partial(self._answered, record, producer))
            return

    def _answered(self, record: _Outgoing, producer: AIOKafkaProducer, sent: asyncio.Future[Any]) -> None:
        if record.acked.done():
            return
        error = None if sent.cancelled() else sent.exception()
        if error is None and not sent.cancelled():
            at = sent.result()
            record.acked.set_result(Place(at.topic, at.partition, at.offset))
        elif isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
            record.acked.set_exception(_too_large(record))
        else:
            retry = asyncio.ensure_future(self._again(record, producer, error))
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)

    async def _again(self, record: _Outgoing, producer: AIOKafkaProducer, error: BaseException | None) -> None:
        await self._replace(producer, error)
        try:
            await self._hand_over(record)
        except PayloadTooLarge as refused:
            if not record.acked.done():
                record.acked.set_exception(refused)

    async def _replace(self, broken: AIOKafkaProducer, error: BaseException | None) -> None:
        """Put a new producer in the place of one that gave up; several callers replace it once."""
        async with self._replacing:
            if self._producer is not broken:
                return
            if not isinstance(error, ProducerClosed):
                log.info("Kafka did not take a record, trying again", action="produce", reason=repr(error))
            await asyncio.sleep(RETRY_AFTER)
            old, self._stack = self._stack, AsyncExitStack()
            _abandon(old)
            while True:
                try:
                    await self.start()
                    return
                except KafkaUnavailable:
                    await asyncio.sleep(RETRY_AFTER)


_abandoned: set[asyncio.Task[None]] = set()


def _abandon(stack: AsyncExitStack) -> None:
    """Close a producer that gave up, in the background: it may wait for what it will never get."""
    task = asyncio.ensure_future(stack.aclose())
    _abandoned.add(task)
    task.add_done_callback(_closed)


def _closed(task: asyncio.Task[None]) -> None:
    _abandoned.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("a producer that gave up did not close", action="produce", reason=repr(error))


def _too_large(record: _Outgoing) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"a record of {len(record.value):,} bytes for {record.topic}, the limit is {MAX_RECORD:,}: "
        "pass a path or write to shared storage"
    )
