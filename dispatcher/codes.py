"""The functions' bodies, as a dispatcher has them: where each stands in Kafka, and those of late.

    upon.registry ──every record──▶ where: hash → offset      told to the state machine as CodeKnown, CodeGone
                                    bodies: the last used     within a bound of bytes
    body wanted ──▶ here? at once : read again from Kafka at its offset, by `read_bodies`

Guarantee: memory is bounded whatever the registry holds. A body that is not to be read now, for Kafka is away, is
waited for; one that is gone from the registry was told of as CodeGone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from upon.dispatcher.decisions.instructions import CodeGone, CodeKnown
from upon.errors import InputError, KafkaUnavailable
from upon.kafka.clients import async_consumer
from upon.logs import get_logger
from upon.messages import CODE_KEY, FunctionCode, RegistryRecord, code_key, decode

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord

log = get_logger(__name__)

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of bodies kept; past it, what was not used for the longest time goes (Kafka has it)."""
AGAIN_AFTER = 0.5
"""Seconds after which a body is read again that was not to be had."""


class Codes:
    """Code by hash.

    Args:
        on_change: called with each code that is new, and each that is gone.
        on_body: called with each body that was wanted and not here, once it has been read.
        limit: bytes of bodies kept.
    """

    def __init__(
        self,
        on_change: Callable[[CodeKnown | CodeGone], None],
        on_body: Callable[[FunctionCode], None],
        limit: int = MAX_BYTES,
    ) -> None:
        self._on_change, self._on_body, self._limit = on_change, on_body, limit
        self._where: dict[str, tuple[int, int]] = {}  # partition, offset
        self._bodies: OrderedDict[str, FunctionCode] = OrderedDict()
        self._bytes = 0
        self._wanted: dict[str, None] = {}  # in order
        self._some_wanted = asyncio.Event()

    def take(self, record: ConsumerRecord[Any, Any]) -> None:
        """Take in a record of the registry."""
        key = record.key or b""
        if not key.startswith(CODE_KEY):
            return
        hash = key[len(CODE_KEY) :].decode("utf-8", "replace")
        if record.value is None:
            self._forget(hash)
            return
        code = _code(record)
        if code is None:
            return
        new = code.hash not in self._where
        self._where[code.hash] = (record.partition, record.offset)
        self._keep(code)
        if new:
            self._on_change(CodeKnown(code.hash))

    def want(self, hash: str) -> FunctionCode | None:
        """Return a body if it is here; else it is read, and `on_body` is called, unless it is gone."""
        found = self._bodies.get(hash)
        if found is not None:
            self._bodies.move_to_end(hash)
        elif hash in self._where:
            self._wanted[hash] = None
            self._some_wanted.set()
        return found

    async def read_bodies(self, kafka: str, client_id: str, topic: str) -> None:
        """Read what is wanted, until cancelled. A consumer lives only while something is wanted."""
        while True:
            await self._some_wanted.wait()
            self._some_wanted.clear()  # before: what is wanted while the consumer closes counts
            try:
                async with async_consumer(kafka, client_id) as consumer:
                    while self._wanted:
                        await self._read(consumer, topic, next(iter(self._wanted)))
            except KafkaUnavailable as error:
                log.warning(f"a function's body is not to be had now: {error}", action="code")
                await asyncio.sleep(AGAIN_AFTER)
                self._some_wanted.set()

    async def _read(self, consumer: AIOKafkaConsumer, topic: str, hash: str) -> None:
        from aiokafka import TopicPartition
        from aiokafka.errors import KafkaError

        place = self._where.get(hash)
        if place is not None and hash not in self._bodies:
            partition, offset = TopicPartition(topic, place[0]), place[1]
            try:
                consumer.assign([partition])
                consumer.seek(partition, offset)
                found = await consumer.getmany(timeout_ms=5000, max_records=1)
            except KafkaError as error:
                log.warning(f"a function's body could not be read: {error!r}; read again", action="code")
                found = {}
            records = found.get(partition, [])
            code = _code(records[0]) if records and records[0].offset == offset else None
            if code is None:  # written anew meanwhile: its new place is about to be heard of; others come first
                if hash in self._wanted:
                    self._wanted[hash] = self._wanted.pop(hash)
                await asyncio.sleep(AGAIN_AFTER)
                return
            self._keep(code)
        self._wanted.pop(hash, None)
        if (body := self._bodies.get(hash)) is not None:
            self._on_body(body)

    def _keep(self, code: FunctionCode) -> None:
        before = self._bodies.pop(code.hash, None)
        self._bytes += len(code.body) - (len(before.body) if before else 0)
        self._bodies[code.hash] = code
        while self._bytes > self._limit and len(self._bodies) > 1:
            self._bytes -= len(self._bodies.popitem(last=False)[1].body)

    def _forget(self, hash: str) -> None:
        gone = self._bodies.pop(hash, None)
        self._bytes -= len(gone.body) if gone else 0
        self._wanted.pop(hash, None)
        if self._where.pop(hash, None) is not None:
            self._on_change(CodeGone(hash))


def _code(record: ConsumerRecord[Any, Any]) -> FunctionCode | None:
    """Return the code of a record; None (and a line in the log) if it is none."""
    try:
        code: RegistryRecord = decode(record.value or b"", RegistryRecord)  # type: ignore[arg-type]
    except InputError as error:
        log.warning(f"a registry record was passed over: {error}", action="registry", offset=record.offset)
        return None
    return code if isinstance(code, FunctionCode) and record.key == code_key(code.hash) else None
