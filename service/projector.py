"""Keeping the task store up with Kafka: invocations of all known sites, results, dead letters → rows.

    consumer ──records──▶ waiting (bounded) ──▶ writer thread: project + one transaction ──▶ written, listeners

No consumer group: positions are in the store, in the transaction of the rows, so a crash loses and doubles
nothing, and of several services with one database each record is written by the one that comes first. `reach` lets a
reader wait until the rows are as new as Kafka was. A database that is away makes the projection wait, and nothing
else; one that is damaged is made anew, and everything read again. What cannot be read or stored, be it one row in
thousands, goes to the dead letters alone: no record stops the projection.

Not here: pushing results (`push`), which must not wait for a database.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from aiokafka import ConsumerRecord, TopicPartition

from upon.deadletters import letter, received
from upon.errors import ServiceUnavailable
from upon.kafka.admin import ensure_topics
from upon.kafka.ends import Ends
from upon.kafka.outbox import Outbox
from upon.kafka.positions import Position
from upon.kafka.reader import Reader, reading
from upon.logs import get_logger
from upon.messages import encode
from upon.service.store.faults import Fault, StoreDamaged, fault
from upon.service.store.projection import Bad, Changes, Positions, project
from upon.service.store.store import DATABASE_ERRORS, Store, reason
from upon.topics import Topics, TopicSpec, origin_of

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
        self._damaged = False
        self._next: Positions = {}  # of what was read
        self._sites: set[str] = set()
        self._begun = False
        self.listeners: list[Callable[[Changes], None]] = []
        """Called in the event loop with what changed, once it is in the store."""

    async def run(self, sites: set[str], started: asyncio.Event) -> None:
        """Project until cancelled; `started` is set once the partitions are known.

        Raises:
            KafkaUnavailable: no broker answers at the start.
        """
        while True:
            try:
                await self._project(sites | self._sites, started)
            except* StoreDamaged as damage:
                why = str(damage.exceptions[0])
                await asyncio.to_thread(self._store.rebuild, why)

    async def _project(self, sites: set[str], started: asyncio.Event) -> None:
        self.written = await asyncio.to_thread(self._store.positions)
        self._sites, self._begun = set(), False
        self._waiting.clear()
        self._waiting_bytes = 0
        self._next = {}
        self._damaged = False
        self._store.on_damage = self._note_damage
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

    async def catch_up(self, sites: set[str], timeout: float) -> None:
        """Wait until the store holds all that Kafka has now of these sites.

        Args:
            timeout: s that Kafka has to say how much that is.

        Raises:
            KafkaUnavailable: it does not.
            ServiceUnavailable: one of the sites is not projected yet.
        """
        partitions = self.partitions()
        if missing := {self._topics.invocations(site) for site in sites} - {one.topic for one in partitions}:
            raise ServiceUnavailable(f"not projected yet: {', '.join(sorted(missing))}")
        await self.reach(await self._ends.ends(partitions, timeout), None)

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
            place, begin = (one.topic, one.partition), reader.begins[one]
            # A position before the topic's beginning: retention was faster than we; nothing can be done about it.
            stored = max(self.written.get(place, begin), begin)
            lost = stored > reader.ends[one]
            self.written[place] = begin if lost else stored
            if lost:
                await asyncio.to_thread(self._store.place, {place: begin})
            starts[one] = Position(stored)
        return starts

    async def _read_all(self, reader: Reader) -> None:
        while True:
            batches = await reader.next(5.0)
            for records in batches:
                await self._note_rewind(records[0])
                self._next[records[-1].topic, records[-1].partition] = records[-1].offset + 1
                self._waiting.append(records)
                self._waiting_bytes += sum(map(_size, records))
            if batches:
                self._some.set()
            while self._waiting_bytes > MAX_WAITING:
                self._room.clear()
                await self._room.wait()

    async def _note_rewind(self, first: ConsumerRecord) -> None:
        """A topic that was made anew counts from its beginning again, in the store too: what is read now is new."""
        place = (first.topic, first.partition)
        if first.offset >= self._next.get(place, 0):
            return
        while self._waiting_bytes:  # what was read before is written before: else it would move the position on again
            self._some.set()
            self._room.clear()
            await self._room.wait()
        await asyncio.to_thread(self._store.place, {place: first.offset})
        self.written[place] = first.offset

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _write_all(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            if self._damaged:
                raise StoreDamaged("a reader met damage")
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

    def _note_damage(self) -> None:
        self._damaged = True
        self._some.set()

    async def _write(self, records: list[ConsumerRecord]) -> None:
        """Write records, however often it takes; those that the database refuses are found and buried alone."""
        parts = deque([records])
        while parts:
            some = parts.popleft()
            try:
                changes = await self._write_together(some)
            except _Refused as refused:
                if len(some) > 1:
                    half = len(some) // 2
                    parts.extendleft((some[half:], some[:half]))
                    continue
                changes = await self._give_up(some[0], refused.reason)
            self._have(changes)

    async def _write_together(self, records: list[ConsumerRecord]) -> Changes:
        """Write records in one transaction; wait for a database that is away.

        Raises:
            _Refused: the database does not take them, whenever they come.
            StoreDamaged: the store must be made anew.
        """
        loop = asyncio.get_running_loop()
        away, buried = "", False
        while True:
            try:
                changes = await loop.run_in_executor(self._writer, self._transaction, records, buried)
                if not changes.bad or buried:
                    break
                for bad in changes.bad:  # first: once the positions are written, nobody reads it again
                    await self._bury(bad)
                buried = True
                continue
            except DATABASE_ERRORS as error:
                if fault(error) is Fault.RECORD:
                    raise _Refused(reason(error)) from error
                if not away:
                    away = await asyncio.to_thread(self._store.why, error)
                    log.warning("the task store does not answer, waiting for it", action="store", reason=away)
                await asyncio.sleep(RETRY_AFTER)
        if away:
            log.info("the task store answers again", action="store")
        return changes

    def _transaction(self, records: list[ConsumerRecord], buried: bool) -> Changes:
        """Write what no other service has written; not yet, if something must be buried first."""
        changes = project(records, self._topics, time.time_ns())
        if changes.bad and not buried:
            return changes

        def missing(taken: Positions) -> Changes:
            left = [one for one in records if one.offset >= taken.get((one.topic, one.partition), 0)]
            return changes if len(left) == len(records) else project(left, self._topics, time.time_ns())

        self._store.write(missing)
        return changes

    async def _give_up(self, record: ConsumerRecord, why: str) -> Changes:
        """Bury a record whose rows the database refuses, and go on behind it."""
        await self._bury(Bad(record, f"the task store refuses it: {why}"))
        changes = Changes(positions={(record.topic, record.partition): record.offset + 1})
        await asyncio.get_running_loop().run_in_executor(self._writer, self._store.write, lambda _: changes)
        return changes

    def _have(self, changes: Changes) -> None:
        """Tell who waits that these changes are in the store."""
        self.written.update(changes.positions)
        for waiter, wanted in list(self._reached.items()):
            if not waiter.done() and self._has(wanted):
                waiter.set_result(None)
        for listener in self.listeners:
            listener(changes)

    async def _bury(self, bad: Bad) -> None:
        """Put a record that is no result into the dead letters. Invocations are the dispatcher's to bury.

        Returns once Kafka has the letter; done again, by whichever service, it is the same letter.
        """
        record = bad.record
        origin = origin_of(record.topic, record.partition, record.offset)
        if record.topic != self._topics.results:
            log.info("passed over a record that cannot be read", action="project", origin=origin, reason=bad.reason)
            return
        buried = letter(received(record), "service", bad.reason, time.time_ns())
        log.warning("a record is no result: it is in the dead letters", action="bury", id=buried.id, origin=origin,
                    reason=bad.reason)  # fmt: skip
        await self._outbox.put(self._topics.deadletter, encode(buried), origin.encode())

    def _has(self, wanted: Positions) -> bool:
        return all(self.written.get(place, 0) >= next_ for place, next_ in wanted.items())


def _size(record: ConsumerRecord) -> int:
    return len(record.value or b"") + 200


class _Refused(Exception):
    """The database does not take some records, for what they hold."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
