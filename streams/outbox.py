"""Records on their way to Kafka: sent again until the broker has them all.

    refused = await outbox.send([Outgoing(topic, key, value), …])

Guarantee: when `send` returns, Kafka has every record (acks=all, idempotent) except those in `refused`, which it will
never take: a topic that does not exist, or a record over the size limit. While the broker is away `send` waits; it
never skips. A record may arrive twice after a failure: what consumes it looks at ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from upon.errors import KafkaError
from upon.kafka import settings
from upon.kafka.clients import unavailable
from upon.logs import get_logger

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

FIRST_DELAY = 0.1
"""Seconds before the second try; doubled each time."""
LONGEST_DELAY = 2.0
CLOSE_TIMEOUT = 1.0
"""Seconds a producer gets to close; one whose broker is away would wait for it."""
ABSENCE_CHECKS = (0.0, 0.25, 0.5)
"""Seconds before each look for a topic, after all of which it counts as absent."""
ABSENCE_REMEMBERED = 5.0
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to send."""

    topic: str
    key: bytes | None
    value: bytes


class TopicMissing(KafkaError):
    """A record is for a topic that does not exist."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic} does not exist")


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that Kafka will never take, by its place in what was sent, and why."""

    index: int
    reason: str


class Outbox:
    """A producer that does not give up. Use as an async context manager.

    Args:
        kafka: bootstrap address.
        client_id: for the broker's logs.
    """

    def __init__(self, kafka: str, client_id: str) -> None:
        self._kafka, self._client_id = kafka, client_id
        self._producer: AIOKafkaProducer | None = None
        self._known: set[str] = set()
        self._absent: dict[str, float] = {}  # topics that do not exist, and until when that is believed

    async def __aenter__(self) -> Outbox:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def send(self, records: Sequence[Outgoing]) -> list[Refused]:
        """Send all records; return when Kafka has them, with those that it will never take."""
        refused: list[Refused] = []
        waiting = dict(enumerate(records))
        delay = FIRST_DELAY
        while waiting:
            outcomes = await self._attempt(waiting)
            for index, outcome in outcomes.items():
                if outcome is None:
                    del waiting[index]
                elif _hopeless(outcome):
                    refused.append(Refused(index, str(outcome) or type(outcome).__name__))
                    del waiting[index]
            if waiting:
                problem = outcomes[next(iter(waiting))]
                log.warning(
                    "Kafka did not take all records, trying again",
                    action="produce",
                    records=len(waiting),
                    wait=delay,
                    error=f"{type(problem).__name__}: {problem}",
                )
                await self._close()
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY)
        return refused

    async def _attempt(self, records: Mapping[int, Outgoing]) -> dict[int, Exception | None]:
        """Send each record once; return what came of it, None for success."""
        from aiokafka.errors import KafkaError as ClientError

        try:
            producer = await self._open()
            missing = await self._missing(producer, {record.topic for record in records.values()})
        except (KafkaError, ClientError) as error:
            return dict.fromkeys(records, error)
        outcomes: dict[int, Exception | None] = {}
        futures: dict[int, Any] = {}
        for index, record in records.items():
            if record.topic in missing:
                outcomes[index] = TopicMissing(record.topic)
                continue
            try:
                futures[index] = await producer.send(record.topic, record.value, record.key)
            except ClientError as error:
                outcomes[index] = error
        for index, future in futures.items():
            try:
                await future
                outcomes[index] = None
            except ClientError as error:
                outcomes[index] = error
        return outcomes

    async def _missing(self, producer: AIOKafkaProducer, topics: set[str]) -> set[str]:
        """Return those of the topics that do not exist; asks the broker only about what is new.

        It asks several times: a broker that has just started may not know all its topics yet.
        """
        now = time.monotonic()
        unknown = {topic for topic in topics - self._known if self._absent.get(topic, 0.0) < now}
        for wait in ABSENCE_CHECKS if unknown else ():
            await asyncio.sleep(wait)
            self._known = set((await producer.client.fetch_all_metadata()).topics())
            unknown -= self._known
            if not unknown:
                break
        self._absent.update(dict.fromkeys(unknown, time.monotonic() + ABSENCE_REMEMBERED))
        return topics - self._known

    async def _open(self) -> AIOKafkaProducer:
        from aiokafka import AIOKafkaProducer
        from aiokafka.errors import KafkaError as ClientError

        if self._producer is None:
            producer = AIOKafkaProducer(**settings.async_producer(self._kafka, self._client_id))
            try:
                await producer.start()
            except ClientError as error:
                await _closed(producer)
                raise unavailable(self._kafka, error) from error
            self._producer, self._known = producer, set()
        return self._producer

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _closed(producer)


async def _closed(producer: AIOKafkaProducer) -> None:
    try:
        await asyncio.wait_for(producer.stop(), CLOSE_TIMEOUT)
    except Exception as error:  # a broker that is away, however it shows: the connection is dropped either way
        log.debug("a producer did not close cleanly", action="produce", error=repr(error))


def _hopeless(outcome: Exception) -> bool:
    from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

    return isinstance(outcome, TopicMissing | MessageSizeTooLargeError | RecordListTooLargeError)
