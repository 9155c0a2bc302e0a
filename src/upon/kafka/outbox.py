"""The one way into Kafka for parts that run in an event loop: lanes in front of an aiokafka producer that is replaced.

    post ─▶ lanes (`upon.kafka.batches`) ─▶ a task per record: topic there? ─▶ producer ─▶ then(place)
                                                 │ no: made, if we know how it looks; else, after a while, then(error)

Guarantees:
  - Kafka has a record (acks=all, idempotent) when `then` gets its place. While the broker is away records wait; they
    never fail for it. aiokafka retries by itself; what it gives up on makes it unusable, so that a new producer takes
    its place and all that is under way is sent again in order. A record may then be there twice: ids make it harmless.
  - What Kafka will never take fails at once, alone: an entry over a record's limit (a refused batch is split).
  - A topic that is away (not there, deleted while running) holds up only what is for it. It is created if `spec_of`
    knows it; else what is for it fails with `TopicMissing` after `PATIENCE`.
  - Memory is bounded: `room` and `send` wait while `max_bytes` are waiting; an entry whose waiter is gone is dropped.
  - An unexpected end of one of its tasks makes `failed` raise: the part ends, and its supervisor starts it again.

Not here: how records are gathered (`batches`, `forms`); what the records mean.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from upon.errors import KafkaError, KafkaUnavailable, PayloadTooLarge
from upon.kafka.acks import TopicMissing, resolve, tell
from upon.kafka.admin import ensure_topics
from upon.kafka.batches import Entry, Lane, Lanes, Place, Record, partition_of
from upon.kafka.clients import close_producer, start_producer
from upon.kafka.forms import WHOLE
from upon.logs import get_logger
from upon.topics import TopicSpec

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

MAX_WAITING = 64 * 1024 * 1024
"""Bytes that may wait for Kafka; past this `room` waits."""
PATIENCE = 2.0
"""Seconds after which a topic that is not there, and that nobody knows how to make, counts as missing."""
LOOK_AGAIN = 0.25
"""Seconds between two looks for a topic."""
ABSENCE_REMEMBERED = 5.0
"""Seconds for which a missing topic is believed to stay so: what is for it fails at once."""
STALLED = 1.0
"""Seconds without Kafka's answer after which it is looked whether the topic is still there."""
RETRY_AFTER = 0.25
"""Seconds between attempts to put a new producer in the place of one that gave up."""
log = get_logger(__name__)


class Outbox:
    """What a part writes to Kafka. Use as an async context manager, or `start` and `stop` it.

    Args:
        kafka: bootstrap address.
        client_id: for the broker's logs.
        spec_of: how a topic is made that is not there; None of one that shall not be made. Default: none is made.
        replication: of the topics that are made.
        max_bytes: that may wait before `room` waits.
    """

    def __init__(
        self,
        kafka: str,
        client_id: str,
        *,
        spec_of: Callable[[str], TopicSpec | None] = lambda _: None,
        replication: int = 1,
        max_bytes: int = MAX_WAITING,
    ) -> None:
        self._kafka, self._client_id, self._spec_of = kafka, client_id, spec_of
        self._replication, self._max_bytes = replication, max_bytes
        self._lanes = Lanes()
        self._producer: AIOKafkaProducer | None = None
        self._there = asyncio.Event()  # there is a producer
        self._tasks: set[asyncio.Task[Any]] = set()
        self._finding: dict[str, asyncio.Task[bool]] = {}
        self._absent: dict[str, float] = {}  # topics that do not exist, and until when that is believed
        self._order: dict[str, asyncio.Lock] = {}  # of topics: handing over to the producer is one after the other
        self._changed, self._turns = asyncio.Event(), itertools.count()
        self._failure: BaseException | None = None
        self._closing = False

    async def __aenter__(self) -> Outbox:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop(0.0)

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaUnavailable: no broker answers.
        """
        self._producer = await start_producer(self._kafka, self._client_id)
        self._there.set()

    # ── what callers do ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def waiting(self) -> int:
        """Entries that are not in Kafka yet."""
        return self._lanes.count

    async def room(self) -> None:
        """Return when there is room for more: the back-pressure."""
        while self._lanes.bytes > self._max_bytes:
            await self._change()

    def post(self, lane: Lane, entry: Entry) -> None:
        """Accept an entry, behind those of its lane; ask for `room` first.

        Raises:
            PayloadTooLarge: no record can hold it.
            KafkaUnavailable: the outbox is not started, or is stopping.
        """
        self._ready()
        self._leave(self._lanes.add(lane, entry))

    async def send(self, lane: Lane, entry: Entry) -> asyncio.Future[Place]:
        """Accept an entry once there is room; the future resolves with its place when Kafka has it.

        Cancelling the future drops the entry if it has not left. Raises as `post`; the future raises what Kafka's
        refusal means: `PayloadTooLarge`, `TopicMissing`.
        """
        await self.room()
        acked: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        entry.then = partial(resolve, acked)
        self.post(lane, entry)
        acked.add_done_callback(partial(self._abandoned, [(lane, entry)]))
        return acked

    async def send_all(self, pairs: Sequence[tuple[Lane, Entry]]) -> asyncio.Future[None]:
        """Accept entries in their order once there is room: all or, if one is too large, none.

        The future resolves when Kafka has them all. Raises as `send`, cancelling drops as there.
        """
        await self.room()
        acked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = len(pairs)

        def then(outcome: Place | Exception) -> None:
            nonlocal left
            left -= 1
            if not acked.done() and isinstance(outcome, Exception):
                acked.set_exception(outcome)
            elif not acked.done() and not left:
                acked.set_result(None)

        for _, entry in pairs:
            entry.then = then
        self._ready()
        for record in self._lanes.add_all(pairs):
            self._leave(record)
        if not pairs:
            acked.set_result(None)
        acked.add_done_callback(partial(self._abandoned, pairs))
        return acked

    async def put(self, topic: str, value: bytes | None, key: bytes | None = None) -> Place:
        """Write a record of its own and wait until Kafka has it. Raises as `send` and its future do."""
        return await (await self.send(Lane(topic, WHOLE), Entry(value, key=key)))

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has, once it is there.

        Raises:
            TopicMissing: it is not there, and is not to be made.
        """
        while True:
            await self._there.wait()
            producer = self._producer
            found = producer and producer.client.cluster.partitions_for_topic(topic)
            if found:
                return len(found)
            if producer is not None and not await self._find(topic):
                raise TopicMissing(topic)

    async def partition_lane(self, topic: str, form: Any, key: bytes | None) -> Lane:
        """Return the lane of the partition to which `key` belongs: entries with different keys share records there.

        Raises:
            TopicMissing: as `partitions`.
        """
        from aiokafka.partitioner import murmur2

        count = await self.partitions(topic)
        number = next(self._turns) % count if key is None else partition_of(key, count, murmur2)
        return Lane(topic, form, partition=number)

    async def flush(self, timeout: float) -> bool:
        """Wait until all that was accepted is in Kafka, at most `timeout` s; return whether it is."""
        try:
            async with asyncio.timeout(timeout):
                while self._lanes.count:
                    await self._change()
        except TimeoutError:
            return not self._lanes.count
        return True

    async def failed(self) -> None:
        """Wait for ever; raise what ended one of the outbox's tasks unexpectedly."""
        while self._failure is None:
            await self._change()
        raise self._failure

    async def stop(self, timeout: float) -> None:
        """Wait until all is in Kafka, at most `timeout` s, and disconnect.

        What is not in Kafka by then was not acknowledged to anybody: its sender submits it again.
        """
        await self.flush(timeout)
        self._closing = True
        if self._lanes.count:
            log.info("left Kafka without its answer", action="stop", waiting=self._lanes.count)
        tasks = [*self._tasks, *self._finding.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer)

    def _ready(self) -> None:
        if self._closing or (self._producer is None and not self._tasks):
            raise KafkaUnavailable("not connected to Kafka: this part is starting or stopping")

    # ── a record's way ────────────────────────────────────────────────────────────────────────────────────────────

    def _leave(self, record: Record | None) -> None:
        if record is not None:
            self._spawn(self._deliver(record))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._changed.set()

    async def _deliver(self, record: Record) -> None:
        from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

        outcome: Place | Exception
        try:
            outcome = await self._delivered(record)
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            if len(record.entries) > 1:
                self._leave(self._lanes.refused(record))
                return
            outcome = PayloadTooLarge(
                f"a record of {record.entries[0].size:,} bytes for {record.lane.topic} is more than the broker takes "
                f"({type(error).__name__}): pass a path or write to shared storage"
            )
        except TopicMissing as error:
            outcome = error
            for entry in self._lanes.give_up(record.lane.topic):
                tell(entry, error)
        following = self._lanes.done(record)
        for entry in record.entries:
            tell(entry, outcome)
        self._leave(following)
        self._changed.set()

    async def _delivered(self, record: Record) -> Place:
        """Return a record's place once Kafka has it, however long it takes.

        Raises:
            TopicMissing, MessageSizeTooLargeError, RecordListTooLargeError: Kafka will never take it.
        """
        from aiokafka.errors import IllegalStateError, MessageSizeTooLargeError, RecordListTooLargeError
        from aiokafka.errors import KafkaError as ClientError

        topic = record.lane.topic
        value, headers = record.encoded()
        order = self._order.setdefault(topic, asyncio.Lock())
        while True:
            await self._there.wait()
            producer = self._producer
            if producer is None:
                continue
            try:
                async with order:  # what waits for the topic is not overtaken by what comes when it is there
                    if not producer.client.cluster.partitions_for_topic(topic) and not await self._find(topic):
                        raise TopicMissing(topic)
                    partition = record.lane.partition
                    if partition is not None:  # a topic that was made anew may have fewer
                        partition %= len(producer.client.cluster.partitions_for_topic(topic) or (0,))
                    sent = await producer.send(topic, value, record.key, partition=partition, headers=headers)
                while not sent.done():
                    await asyncio.wait([sent], timeout=STALLED)
                    if not sent.done() and not await self._still_there(producer, topic):
                        raise TopicMissing(topic)
                at = sent.result()
                return Place(at.topic, at.partition, at.offset)
            except (MessageSizeTooLargeError, RecordListTooLargeError):
                raise
            except (ClientError, IllegalStateError) as error:
                self._replace(producer, error)

    # ── topics that are away ──────────────────────────────────────────────────────────────────────────────────────

    async def _still_there(self, producer: AIOKafkaProducer, topic: str) -> bool:
        """Return whether a topic exists, as far as can be known; make it if it can be made."""
        from aiokafka.errors import KafkaError as ClientError

        try:
            async with asyncio.timeout(STALLED):
                if topic in (await producer.client.fetch_all_metadata()).topics():
                    return True
        except (ClientError, TimeoutError, OSError):
            return True  # the broker is away: that is waited out
        return await self._find(topic)

    async def _find(self, topic: str) -> bool:
        """Return once a topic is there: True; or False when it is missing for good. One search for all who ask."""
        if self._absent.get(topic, 0.0) > time.monotonic():
            return False
        search = self._finding.get(topic)
        if search is None:
            search = self._finding[topic] = asyncio.create_task(self._search(topic))
            search.add_done_callback(lambda _: self._finding.pop(topic, None))
        return await asyncio.shield(search)

    async def _search(self, topic: str) -> bool:
        from aiokafka.errors import KafkaError as ClientError

        since: float | None = None  # from when on a broker has said that it is not there
        while True:
            await self._there.wait()
            try:
                client = self._producer.client if self._producer is not None else None
                if client is not None and topic in (await client.fetch_all_metadata()).topics():
                    client.add_topic(topic)
                    await client.force_metadata_update()
                    if client.cluster.partitions_for_topic(topic):
                        return True
                elif (spec := self._spec_of(topic)) is not None:
                    log.warning("a topic is not there; it is made", action="topic", topic=topic)
                    await ensure_topics(self._kafka, [spec], self._replication)
                    continue
                else:
                    since = since or time.monotonic()
            except (ClientError, KafkaError, OSError) as error:
                log.debug("topics cannot be looked up", action="topic", reason=repr(error))
                since = None
            if since is not None and time.monotonic() - since >= PATIENCE:
                self._absent[topic] = time.monotonic() + ABSENCE_REMEMBERED
                return False
            await asyncio.sleep(LOOK_AGAIN)

    # ── producers that gave up ────────────────────────────────────────────────────────────────────────────────────

    def _replace(self, broken: AIOKafkaProducer, error: BaseException) -> None:
        """Put a new producer in the place of one that gave up; several callers replace it once."""
        if self._producer is not broken or self._closing:
            return
        log.info("Kafka did not take a record, trying again", action="produce", reason=repr(error))
        self._producer = None
        self._there.clear()
        self._spawn(self._connect())
        self._spawn(close_producer(broken))

    async def _connect(self) -> None:
        while True:
            await asyncio.sleep(RETRY_AFTER)
            try:
                self._producer = await start_producer(self._kafka, self._client_id)
            except KafkaUnavailable as error:
                log.debug("no broker answers", action="produce", reason=str(error))
                continue
            self._there.set()
            return

    # ── small things ──────────────────────────────────────────────────────────────────────────────────────────────

    def _abandoned(self, pairs: Sequence[tuple[Lane, Entry]], acked: asyncio.Future[Any]) -> None:
        if acked.cancelled():
            for lane, entry in pairs:
                self._lanes.drop(lane, entry)
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
