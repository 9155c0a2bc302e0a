"""Reading whole topics: the one way in which every part but the stream worker's consumer group reads Kafka.

    reader = await stack.enter_async_context(reading(kafka, "upon-x", [topic], spec_of=topics.spec_of))
    for records in await reader.next(): …

Guarantees, beside aiokafka's:
  - Partitions that are added while it reads are taken up within seconds, from their beginning.
  - A topic that is deleted while it reads is made anew (if `spec_of` knows how it looks) and read from its beginning.
  - A position that the log no longer has (a power cut took the end, retention the beginning) is corrected so that
    nothing new is passed over, at the start and while reading, and the log says so (`upon.kafka.positions`).
  - A damaged log ends in `KafkaDamaged`, which names topic, partition, offset and what to do; never in silence.

Partitions are assigned by hand: there is no group session to wait for after a kill. Not here: what records mean.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from upon.errors import KafkaDamaged, KafkaUnavailable
from upon.kafka.admin import ensure_topics
from upon.kafka.clients import async_consumer
from upon.kafka.positions import Log, Position, Times, committed_position, resume
from upon.logs import get_logger
from upon.topics import TopicSpec

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

MADE_ANEW_AFTER = 1.0
"""Seconds that a topic may be missing before it is made anew: a broker that starts may not know all its topics yet."""
STALLED = 10.0
"""Seconds without a record, though there are some, after which a partition's log counts as damaged."""
log = get_logger(__name__)

Starts = Callable[["Reader", list[Any]], Awaitable[Mapping[Any, Position]]]
"""Where to begin: (reader, which knows `begins` and `ends`; partitions) → positions; the others begin at first."""


async def from_the_beginning(reader: Reader, partitions: list[Any]) -> Mapping[Any, Position]:
    """Begin every partition at its first record."""
    return {}


async def from_the_end(reader: Reader, partitions: list[Any]) -> Mapping[Any, Position]:
    """Begin with the records that come now."""
    return {one: Position(reader.ends[one]) for one in partitions}


@asynccontextmanager
async def reading(
    kafka: str,
    client_id: str,
    topics: Iterable[str],
    *,
    group: str | None = None,
    start: Starts = from_the_beginning,
    spec_of: Callable[[str], TopicSpec | None] = lambda _: None,
    replication: int = 1,
    may_rewind: bool = True,
) -> AsyncIterator[Reader]:
    """A reader of all partitions of `topics`.

    Args:
        group: whose committed offsets it keeps; None: none.
        start: where to begin.
        spec_of, replication: how a topic is made that is deleted while it is read.
        may_rewind: whether `next` may go back, after a loss; if not it raises, for who reads must begin anew then.

    Raises:
        KafkaUnavailable: no broker answers, or a topic does not exist.
    """
    async with async_consumer(kafka, client_id, group=group, reset="none") as consumer:
        reader = Reader(
            kafka, consumer, group=group, start=start, spec_of=spec_of, replication=replication, may_rewind=may_rewind
        )
        await reader.add(topics)
        yield reader


class Reader:
    """Made by `reading`.

    Attributes:
        begins, ends: of the partitions as they were at first.
        positions: the next record of each partition.
    """

    def __init__(
        self,
        kafka: str,
        consumer: AIOKafkaConsumer,
        *,
        group: str | None,
        start: Starts,
        spec_of: Callable[[str], TopicSpec | None],
        replication: int,
        may_rewind: bool,
    ) -> None:
        self._kafka, self._group, self.consumer, self._start = kafka, group, consumer, start
        self._spec_of, self._replication, self._may_rewind = spec_of, replication, may_rewind
        self.begins: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}
        self.positions: dict[TopicPartition, Position] = {}
        self._topics: list[str] = []
        self._times: Times[TopicPartition] = Times()
        self._gone: dict[str, float] = {}  # topics that are missing, and since when
        self._paused = False
        self._heard = time.monotonic()
        self._suspects: dict[TopicPartition, int] = {}
        consumer._client.cluster.add_listener(self._look)

    @property
    def partitions(self) -> list[TopicPartition]:
        """What is read."""
        return list(self.positions)

    @property
    def missing(self) -> set[str]:
        """Topics that are not there now."""
        return set(self._gone)

    async def add(self, topics: Iterable[str]) -> None:
        """Read these topics as well.

        Raises:
            KafkaUnavailable: one does not exist.
        """
        new = [one for one in topics if one not in self._topics]
        await self.consumer._client.set_topics([*self._topics, *new])
        partitions = []
        for topic in new:
            found = self._numbers(topic)
            if not found:
                raise KafkaUnavailable(f"topic {topic} does not exist; `upon up` creates the topics of a deployment")
            partitions += self._places(topic, found)
        # Asked before partitions are assigned: a fetch that waits for records would hold these up behind it.
        begins, ends = await self._bounds(partitions)
        self.begins |= begins
        self.ends |= ends
        starts = await self._start(self, partitions)
        at = {one: await self._checked(one, starts.get(one, Position(begins[one])), begins, ends) for one in partitions}
        # All at once, and not before: `next`, which goes on meanwhile, would read them from their beginning.
        self._topics += new
        self.positions |= at
        for one, position in at.items():
            if self._group and position.time is not None:  # committed once more, it keeps its time
                self._times.read(one, position.offset - 1, position.time)
        self._assign()

    async def next(self, timeout: float = 1.0, max_records: int | None = None) -> list[list[ConsumerRecord[Any, Any]]]:
        """Return records that came, those of one partition together, in order; none if none came in `timeout` s.

        Raises:
            KafkaDamaged: a record cannot be read, and never will be.
            KafkaUnavailable: the log has lost its end or was made anew, and this reader may not go back.
        """
        from aiokafka.errors import KafkaError, OffsetOutOfRangeError

        await self._renew()
        try:
            batches = await self.consumer.getmany(timeout_ms=int(timeout * 1000), max_records=max_records)
        except OffsetOutOfRangeError as error:
            for partition in error.args[0]:
                await self._correct(partition)
            return []
        except (KafkaError, ValueError, TypeError, IndexError, LookupError, AssertionError) as error:
            raise await self._damaged(error) from error
        for partition, records in batches.items():
            self.positions[partition] = Position(records[-1].offset + 1, records[-1].timestamp)
            if self._group:
                for record in records:
                    self._times.read(partition, record.offset, record.timestamp)
        if batches or self._paused:
            self._heard = time.monotonic()
            self._suspects.clear()
        elif time.monotonic() - self._heard > STALLED:
            await self._suspect()
        return [records for records in batches.values() if records]

    def pause(self) -> None:
        """Read nothing until `resume`."""
        self._paused = True
        self.consumer.pause(*self.positions)

    def resume(self) -> None:
        self._paused = False
        self.consumer.resume(*self.positions)

    def at(self, partition: TopicPartition, offset: int) -> Position:
        """Return the position of an offset up to which is read, to be committed."""
        return self._times.at(partition, offset)

    async def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        """Return the positions that the group has committed."""
        from aiokafka.structs import TopicPartition as Place

        coordinator = self.consumer._coordinator
        found = await coordinator.fetch_committed_offsets([Place(one.topic, one.partition) for one in partitions])
        return {one: committed_position(at.offset, at.metadata) for one, at in found.items() if at.offset >= 0}

    async def commit(self, positions: Mapping[TopicPartition, Position]) -> None:
        """Commit positions. Raises aiokafka's KafkaError when Kafka does not take them."""
        await self.consumer.commit({one: (at.offset, at.metadata()) for one, at in positions.items()})

    # ── what changes behind our back ──────────────────────────────────────────────────────────────────────────────

    def _look(self, cluster: Any) -> None:
        """After each update of the metadata: which topics are missing?"""
        for topic in self._topics:
            if not cluster.partitions_for_topic(topic):
                self._gone.setdefault(topic, time.monotonic())

    async def _renew(self) -> None:
        """Take up new partitions, and topics that were made anew."""
        for topic, since in list(self._gone.items()):
            if self._numbers(topic):
                del self._gone[topic]
                log.warning("a topic was made anew: it is read from its beginning", action="read", topic=topic)
                self._rewinds(topic)
                for one in [one for one in self.positions if one.topic == topic]:
                    del self.positions[one]
            elif time.monotonic() - since > MADE_ANEW_AFTER and (spec := self._spec_of(topic)) is not None:
                log.warning("a topic is missing: it is made anew", action="read", topic=topic)
                await ensure_topics(self._kafka, [spec], self._replication)
                await self.consumer._client.force_metadata_update()
        there = {
            one
            for topic in self._topics
            if topic not in self._gone
            for one in self._places(topic, self._numbers(topic))
        }
        new = there - self.positions.keys()
        lost = {one for one in self.positions if one.topic not in self._gone} - there
        if not new and not lost:
            return
        for one in new:
            log.info("a partition is read from its beginning", action="read", topic=one.topic, partition=one.partition)
            self.positions[one] = Position(0)
        for one in lost:
            del self.positions[one]
        self._assign()

    def _assign(self) -> None:
        self.consumer.assign(list(self.positions))
        for one, at in self.positions.items():
            self.consumer.seek(one, at.offset)
        if self._paused:
            self.consumer.pause(*self.positions)
        self._heard = time.monotonic()

    async def _correct(self, partition: TopicPartition) -> None:
        """Move a position that the log does not have."""
        begins, ends = await self._bounds([partition])
        at = await self._checked(partition, self.positions[partition], begins, ends)
        if at.offset < self.positions[partition].offset:
            self._rewinds(partition.topic)
        self.positions[partition] = at
        self.consumer.seek(partition, at.offset)

    def _rewinds(self, topic: str) -> None:
        if not self._may_rewind:
            raise KafkaUnavailable(
                f"topic {topic} has lost records that were read: this part begins anew with what there is"
            )

    async def _checked(
        self,
        partition: TopicPartition,
        position: Position,
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> Position:
        """Return the position at which to read on, and say so if it is another one."""
        at = await checked(self.consumer, partition, position, begins[partition], ends[partition])
        if at != position.offset:
            return Position(at)
        if (beyond := position.beyond) is not None:
            newer = await _newer(self.consumer, partition, beyond.newest)
            beyond = beyond.until(ends[partition] if newer is None else newer)
        return Position(at, position.time, beyond)

    async def _bounds(self, partitions: list[TopicPartition]) -> tuple[dict[Any, int], dict[Any, int]]:
        return await self.consumer.beginning_offsets(partitions), await self.consumer.end_offsets(partitions)

    # ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _suspect(self) -> None:
        """Nothing came for a while: is there something? Asked twice, it is damaged."""
        self._heard = time.monotonic()
        there = [one for one in self.positions if one.topic not in self._gone]
        try:
            async with asyncio.timeout(STALLED):
                _, ends = await self._bounds(there)
        except Exception as error:  # the broker is away: that is waited out
            log.debug("ends of partitions cannot be asked", action="read", reason=repr(error))
            return
        behind = {one: self.positions[one].offset for one in there if self.positions[one].offset < ends[one]}
        for one, offset in behind.items():
            if self._suspects.get(one) == offset:
                raise damaged(one, offset, "Kafka delivers nothing from there on")
        self._suspects = behind

    async def _damaged(self, error: BaseException) -> KafkaDamaged:
        """Return the error for records that cannot be read: of the partition that it names, or the first behind."""
        named = [one for one in self.positions if str(one) in str(error) or one in getattr(error, "args", ())]
        try:
            async with asyncio.timeout(STALLED):
                _, ends = await self._bounds(list(self.positions))
        except Exception:
            ends = {}
        behind = [one for one, at in self.positions.items() if at.offset < ends.get(one, 0)]
        one = next(iter(named or behind or self.positions))
        return damaged(one, self.positions[one].offset, str(error) or type(error).__name__)

    # ── small things ──────────────────────────────────────────────────────────────────────────────────────────────

    def _numbers(self, topic: str) -> set[int]:
        return set(self.consumer._client.cluster.partitions_for_topic(topic) or ())

    def _places(self, topic: str, numbers: Iterable[int]) -> list[TopicPartition]:
        from aiokafka import TopicPartition

        return [TopicPartition(topic, number) for number in sorted(numbers)]


async def checked(consumer: AIOKafkaConsumer, partition: Any, position: Position, begin: int, end: int) -> int:
    """Return the offset at which to read on; a warning says so if it is another one than the position's."""
    newer = None if position.time is None else await _newer(consumer, partition, position.time)
    offset = resume(position, Log(begin, end, newer))
    if offset != position.offset:
        log.warning(
            "the log does not go on where it was read to (its end was lost, retention was faster, or the topic was "
            "made anew): it is read on from where nothing new is passed over",
            action="read",
            topic=partition.topic,
            partition=partition.partition,
            position=position.offset,
            begin=begin,
            end=end,
            now=offset,
        )
    return offset


async def _newer(consumer: AIOKafkaConsumer, partition: Any, time: int) -> int | None:
    """Return the offset of the first record that is newer than a time (ms); None: there is none."""
    at = (await consumer.offsets_for_times({partition: time + 1})).get(partition)
    return None if at is None else at.offset


def damaged(partition: Any, offset: int, why: str) -> KafkaDamaged:
    """Return the error for a log that cannot be read, with what to do."""
    topic, number = partition.topic, partition.partition
    return KafkaDamaged(
        f"topic {topic}, partition {number}: the record at offset {offset} cannot be read ({why}). Kafka's log is "
        f"damaged there. Restore Kafka's data from a backup; or, to give up what this partition holds, stop Kafka "
        f"(`upon down`), move its folder {topic}-{number} (of a home: in kafka/data) away and start again"
    )
