"""Keeping the task store up with Kafka: invocations of all known sites, results, dead letters → rows.

    consumer ──records──▶ waiting (bounded) ──▶ writer thread: project + one transaction ──▶ written, listeners

No consumer group: positions are in the store, in the transaction of the rows, so a crash loses and doubles
nothing. `reach` lets a reader wait until the rows are as new as Kafka was. A database that is away makes the
projection wait, and nothing else. What cannot be read or stored goes to the dead letters.

Not here: pushing results (`push`), which must not wait for a database.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from upon.deadletters import letter, received
from upon.kafka.admin import ensure_topics
from upon.kafka.batches import Entry, Lane
from upon.kafka.forms import WHOLE
from upon.kafka.outbox import Outbox
from upon.kafka.positions import Position
from upon.kafka.reader import Reader, reading
from upon.logs import get_logger
from upon.messages import encode
from upon.service.ends import Ends
from upon.service.projection import Bad, Changes, Positions, project
from upon.service.store import Store, reason
from upon.topics import Topics, TopicSpec

MAX_WAITING = 64 * 1024 * 1024
"""Bytes of records that wait for the writer; past this no more are fetched."""
MAX_WRITE = 8 * 1024 * 1024
"""Bytes of records in one transaction: what a reader of the newest rows may have to wait for."""
RETRY_AFTER = 0.5
"""Seconds until a write is tried again when the database is away."""
log = get_logger(__name__)


class Projector:
    """The projection of one deployment.

    Args:
        kafka: bootstrap address.
        topics: the deployment's topics.
        store: an open store.
        outbox: for what becomes a dead letter.
        ends: where partitions end.
        site_topics: gives the topics of a site, to be made if they are not there yet.
    """

    def __init__(
        self,
        kafka: str,
        topics: Topics,
        store: Store,
        outbox: Outbox,
        ends: Ends,
        *,
        site_topics: Callable[[str], list[TopicSpec]],
    ) -> None:
        self._kafka, self._topics, self._store, self._outbox, self._ends = kafka, topics, store, outbox, ends
        self._site_topics = site_topics
        self._reader: Reader | None = None
        self.written: Positions = {}  # in the store
        self._waiting: deque[list[ConsumerRecord]] = deque()
        self._waiting_bytes = 0
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._reached: dict[asyncio.Future[None], Positions] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._assigning = asyncio.Lock()
        self._sites: set[str] = set()
        self._begun = False
        self.listeners: list[Callable[[list[str]], None]] = []
        """Called in the event loop with the ids of the tasks that changed, once they are in the store."""

    async def run(self, sites: set[str], started: asyncio.Event) -> None:
        """Project until cancelled; `started` is set once the partitions are known.

        Raises:
            KafkaUnavailable: no broker answers at the start.
        """
        self.written = await asyncio.to_thread(self._store.positions)
        self._sites, self._begun = set(), False
        self._waiting.clear()
        self._waiting_bytes = 0
        async with (
            reading(self._kafka, "upon-service-store", [], start=self._start, spec_of=self._topics.spec_of) as reader,
            asyncio.TaskGroup() as group,
        ):
            self._reader = reader
            await self.add_sites(sites)
            started.set()
            group.create_task(self._write_all())
            try:
                await self._read_all(reader)
            finally:
                self._reader = None

    async def add_sites(self, sites: set[str]) -> None:
        """Take in the invocations of further sites as well. Topics that are missing are made."""
        reader = self._reader
        if reader is None or (self._begun and sites <= self._sites):
            return
        async with self._assigning:
            new = sorted(sites - self._sites)
            if self._begun and not new:
                return
            await ensure_topics(self._kafka, [spec for site in new for spec in self._site_topics(site)])
            shared = [] if self._begun else [self._topics.results, self._topics.deadletter]
            await reader.add([*shared, *map(self._topics.invocations, new)])
            self._sites, self._begun = self._sites | sites, True
        log.info("projecting", action="project", sites=sorted(self._sites), partitions=len(reader.partitions))

    async def reach(self, wanted: Positions, timeout: float | None) -> bool:
        """Wait until the store holds all records before `wanted`; return False if `timeout` s were not enough.

        Partitions that are not projected are passed over.
        """
        projected = {(one.topic, one.partition) for one in self.partitions()}
        open_ = {place: next_ for place, next_ in wanted.items() if place in projected or not projected}
        if self._has(open_):
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reached[waiter] = open_
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return False
        finally:
            del self._reached[waiter]
        return True

    def partitions(self) -> list[TopicPartition]:
        """Return the partitions that are projected."""
        return self._reader.partitions if self._reader is not None else []

    def close(self) -> None:
        """Wait for the transaction under way and end the writer's thread."""
        self._writer.shutdown(wait=True, cancel_futures=True)

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, reader: Reader, partitions: list[TopicPartition]) -> Mapping[TopicPartition, Position]:
        """Begin where the store is; the reader corrects what Kafka does not have."""
        starts = {}
        for one in partitions:
            begin = reader.begins[one]
            # A position before the topic's beginning: retention was faster than we; nothing can be done about it.
            stored = max(self.written.get((one.topic, one.partition), begin), begin)
            lost = stored > reader.ends[one]
            self.written[one.topic, one.partition] = begin if lost else stored
            starts[one] = Position(stored)
        return starts

    async def _read_all(self, reader: Reader) -> None:
        while True:
            batches = await reader.next(5.0)
            for records in batches:
                self._waiting.append(records)
                self._waiting_bytes += sum(map(_size, records))
            if batches:
                self._some.set()
            while self._waiting_bytes > MAX_WAITING:
                self._room.clear()
                await self._room.wait()

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _write_all(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                records: list[ConsumerRecord] = []
                size = 0
                while self._waiting and size < MAX_WRITE:
                    some = self._waiting.popleft()
                    records += some
                    size += sum(map(_size, some))
                await self._write(records)
                self._waiting_bytes -= size
                self._room.set()

    async def _write(self, records: list[ConsumerRecord]) -> None:
        """Write records, however often it takes; one that the database refuses is buried alone."""
        loop = asyncio.get_running_loop()
        away = False
        while True:
            try:
                changes = await loop.run_in_executor(self._writer, self._transaction, records)
                break
            except (DataError, IntegrityError, OverflowError) as error:
                if len(records) > 1:
                    for record in records:
                        await self._write([record])
                    return
                said = reason(error) if isinstance(error, SQLAlchemyError) else str(error)
                changes = Changes(bad=[Bad(records[0], f"the task store refuses it: {said}")])
                changes.positions[records[0].topic, records[0].partition] = records[0].offset + 1
                await loop.run_in_executor(self._writer, self._store.write, changes)
                break
            except DBAPIError as error:
                if not away:
                    log.warning("the task store does not answer, waiting for it", action="store", reason=reason(error))
                    away = True
                await asyncio.sleep(RETRY_AFTER)
        if away:
            log.info("the task store answers again", action="store")
        for bad in changes.bad:
            await self._bury(bad)
        self.written.update(changes.positions)
        for waiter, wanted in list(self._reached.items()):
            if not waiter.done() and self._has(wanted):
                waiter.set_result(None)
        if self.listeners and (ids := changes.ids()):
            for listener in self.listeners:
                listener(ids)

    def _transaction(self, records: list[ConsumerRecord]) -> Changes:
        changes = project(records, self._topics, time.time_ns())
        self._store.write(changes)
        return changes

    async def _bury(self, bad: Bad) -> None:
        """Put a record that is no result into the dead letters. Invocations are the dispatcher's to bury."""
        record = bad.record
        origin = f"{record.topic}/{record.partition}/{record.offset}"
        if record.topic != self._topics.results:
            log.info("passed over a record that cannot be read", action="project", origin=origin, reason=bad.reason)
            return
        buried = letter(received(record), "service", bad.reason, time.time_ns())
        log.warning("a record is no result: it is in the dead letters", action="bury", id=buried.id, origin=origin,
                    reason=bad.reason)  # fmt: skip
        await self._outbox.send(Lane(self._topics.deadletter, WHOLE), Entry(encode(buried), key=origin.encode()))

    def _has(self, wanted: Positions) -> bool:
        return all(self.written.get(place, 0) >= next_ for place, next_ in wanted.items())


def _size(record: ConsumerRecord) -> int:
    return len(record.value or b"") + 200
