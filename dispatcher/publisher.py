"""Results to Kafka: at once while it is quiet, in batches under load, several records under way, in order.

    result() ─▶ queue by group ─▶ one record per group and MiB ─▶ producer ─▶ on_stored(ids)

A record is sent as soon as there is something to send and fewer than IN_FLIGHT are under way: what comes meanwhile
is gathered in the next one. Guarantee: `on_stored` is called for an id only after Kafka has its result (acks=all).
A record that is refused is sent again (results are deduplicated by id); refused RETRIES times in a row, `run`
raises, the part ends, and its successor rebuilds what is done from Kafka.

Not here: offsets, and whether a result is due.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from upon.dispatcher.tasks import failure
from upon.errors import KafkaUnavailable, PayloadTooLarge
from upon.logs import get_logger
from upon.messages import (
    COALESCE_BYTES,
    MAX_RECORD,
    DeadLetter,
    Result,
    ResultBatch,
    SiteStatus,
    Started,
    encode,
)
from upon.topics import Topics

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

log = get_logger(__name__)

IN_FLIGHT = 8
"""Records under way at once, at most."""
RETRIES = 3
"""Refusals in a row after which the producer counts as unusable; each took up to a minute of its own retries."""
ROOM = MAX_RECORD - 16 * 1024
"""Bytes a record's value may have; the rest is for Kafka's own."""
OVERHEAD = 300
"""Bytes a result has beside its payload, about."""

Item = Result | Started


class Publisher:
    """Writes results, starts, dead letters and the site's status.

    Args:
        producer: started.
        topics, site: where to and who says it.
        on_stored: called in the event loop with the ids whose results Kafka has.
    """

    def __init__(
        self, producer: AIOKafkaProducer, topics: Topics, site: str, on_stored: Callable[[tuple[str, ...]], None]
    ) -> None:
        self._producer, self._topics, self._site, self._on_stored = producer, topics, site, on_stored
        self._queues: dict[str, deque[Item]] = {}
        self._wake = asyncio.Event()
        self._under_way: set[asyncio.Future[Any]] = set()
        self._refused = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def result(self, result: Result) -> None:
        """Queue a result."""
        self._put(result.group, result)

    def started(self, group: str, started: Started) -> None:
        """Queue the news that an invocation has begun."""
        self._put(group, started)

    def _put(self, group: str, item: Item) -> None:
        self._queues.setdefault(group, deque()).append(item)
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Send what is queued, until cancelled.

        Raises:
            KafkaUnavailable: records are refused again and again.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._refused >= RETRIES:
                raise KafkaUnavailable(
                    f"results could not be written {self._refused} times in a row; the dispatcher ends, "
                    "and goes on from Kafka when it is started again"
                )
            while self._queues and len(self._under_way) < IN_FLIGHT:
                group = next(iter(self._queues))
                items = self._take(group)
                value = self._encoded(group, items)
                sending = asyncio.ensure_future(self._send(group, value))
                self._under_way.add(sending)
                sending.add_done_callback(partial(self._sent, group, items))
                await asyncio.sleep(0)  # lets it reach the producer, so that records leave in order

    async def _send(self, group: str, value: bytes) -> None:
        await self._producer.send_and_wait(self._topics.results, value, key=group.encode() or None)

    def _take(self, group: str) -> list[Item]:
        """Return the next record's worth of a group; the group goes to the end of the line."""
        queue = self._queues.pop(group)
        items: list[Item] = []
        size = 0
        while queue and (not items or size < COALESCE_BYTES):
            item = queue.popleft()
            size += OVERHEAD + (len(item.payload) + len(item.stdout) if isinstance(item, Result) else 0)
            if items and size > ROOM:
                queue.appendleft(item)
                break
            items.append(item)
        if queue:
            self._queues[group] = queue
        return items

    def _encoded(self, group: str, items: list[Item]) -> bytes:
        value = encode(self._batch(items))
        if len(value) <= ROOM:
            return value
        # Rare: the payloads fit and what is around them does not. Half of it each, or a result that says so.
        if len(items) > 1:
            middle = len(items) // 2
            self._queues.setdefault(group, deque()).extendleft(reversed(items[middle:]))
            del items[middle:]
        elif isinstance(items[0], Result):
            items[0] = too_large(items[0], len(value))
        return self._encoded(group, items)

    def _batch(self, items: list[Item]) -> ResultBatch:
        return ResultBatch(
            site=self._site,
            results=tuple(i for i in items if isinstance(i, Result)),
            started=tuple(i for i in items if isinstance(i, Started)),
        )

    def _sent(self, group: str, items: list[Item], done: asyncio.Future[None]) -> None:
        self._under_way.discard(done)
        self._wake.set()
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            self._refused += 1
            log.warning(f"results were not written: {error!r}; sent again", action="publish", count=len(items))
            self._queues.setdefault(group, deque()).extendleft(reversed(items))
            return
        self._refused = 0
        if not self._queues and not self._under_way:
            self._idle.set()
        if ids := tuple(i.id for i in items if isinstance(i, Result)):
            self._on_stored(ids)

    async def letter(self, letter: DeadLetter) -> None:
        """Write a dead letter and wait until Kafka has it. Raises aiokafka's KafkaError when it is refused."""
        await self._producer.send_and_wait(self._topics.deadletter, encode(letter), key=letter.origin.encode())

    async def status(self, status: SiteStatus) -> None:
        """Write what the dispatcher says of its site. Raises aiokafka's KafkaError when it is refused."""
        await self._producer.send_and_wait(self._topics.sites, encode(status), key=self._site.encode())

    async def drained(self) -> None:
        """Wait until all that was queued is in Kafka."""
        await self._idle.wait()


def too_large(result: Result, size: int) -> Result:
    """Return the failure in place of a result that does not fit into a record with all that belongs to it."""
    message = f"the result and what belongs to it are {size:,} bytes, a record holds {ROOM:,}: write to a file instead"
    return msgspec.structs.replace(
        result,
        status="failed",
        payload=b"",
        stdout=result.stdout[-10_000:],
        preview="",
        bad_items=(),
        failure=failure(PayloadTooLarge, message),
    )
