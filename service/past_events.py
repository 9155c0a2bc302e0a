"""Events of the past, read from Kafka: the newest of a span of time, within a budget of bytes and seconds.

Guarantees: nothing that was asked for is left out in silence: the answer says since when it is complete. One listing
at a time, whatever is asked at once; a long event is without its data. Not here: following events as they come
(`upon.service.watch`); which part of the log is read (`upon.service.newest`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from aiokafka import ConsumerRecord, TopicPartition

from upon import api
from upon.events import Event, one_of, read_record, rfc3339
from upon.kafka.ends import Ends
from upon.kafka.places import TIMEOUT, Places
from upon.service.newest import Newest
from upon.topics import origin_of

ROOM = 32 * 1024 * 1024
"""Bytes of records that one listing reads, about."""
WITHIN = 30.0
"""Seconds after which it reads no further."""
SHOWN = 64 * 1024
"""Bytes of an event that are shown; a longer one is without its data."""
ATTRIBUTES_SHOWN = ("specversion", "id", "source", "type", "subject", "time")
OVERHEAD = 70
"""Bytes that a record has beside key, value and headers."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events; None = any. `since`, `until`: when Kafka had them, ns; `types`: one of these, * at an end."""

    types: tuple[str, ...] = ()
    source: str | None = None
    subject: str | None = None
    since: int | None = None
    until: int | None = None

    def holds(self, event: Event) -> bool:
        return (
            (not self.types or one_of(self.types, event.type))
            and (self.source is None or one_of((self.source,), event.source))
            and (self.subject is None or one_of((self.subject,), event.subject or ""))
        )


class PastEvents:
    """Lists the events of a topic.

    Args:
        topic: of events.
        ends, places: how Kafka is asked and read.
    """

    def __init__(self, topic: str, ends: Ends, places: Places, room: int = ROOM) -> None:
        self._topic, self._ends, self._places, self._room = topic, ends, places, room
        self._one = asyncio.Lock()

    async def list(self, wanted: EventFilter, limit: int) -> api.PastEvents:
        """Return the newest `limit` events that are wanted, oldest first.

        Raises:
            KafkaUnavailable: no broker answers.
            KafkaDamaged: a record cannot be read.
        """
        async with self._one:
            newest: Newest[TopicPartition, api.EventRecord] = Newest(await self._spans(wanted), limit, self._room)
            deadline = time.monotonic() + WITHIN
            while windows := newest.windows():
                await self._read(newest, wanted, windows)
                if time.monotonic() > deadline:
                    newest.stop()
        found = [event for _, event in newest.found]
        since = newest.complete_since
        complete = None if since is None else rfc3339(min(since * 1_000_000, time.time_ns()))
        return api.PastEvents(events=found, more=newest.more, complete_since=complete)

    async def _spans(self, wanted: EventFilter) -> dict[TopicPartition, tuple[int, int]]:
        """Return the offsets between which each partition has what was recorded between `since` and `until`."""
        partitions = await self._ends.partitions([self._topic], TIMEOUT)
        firsts = await self._ends.begins(partitions, TIMEOUT)
        lasts = await self._ends.ends(partitions, TIMEOUT)
        if wanted.since is not None:
            firsts = lasts | await self._ends.at(partitions, -(-wanted.since // 1_000_000), TIMEOUT)
        if wanted.until is not None:
            lasts = lasts | await self._ends.at(partitions, wanted.until // 1_000_000 + 1, TIMEOUT)
        return {one: (firsts[one.topic, one.partition], lasts[one.topic, one.partition]) for one in partitions}

    async def _read(
        self,
        newest: Newest[TopicPartition, api.EventRecord],
        wanted: EventFilter,
        windows: Mapping[TopicPartition, tuple[int, int]],
    ) -> None:
        """Read windows and offer what is wanted of them."""
        read = {partition: [0, 0, 0] for partition in windows}  # records, bytes, time of the first
        async for (partition, _, _), records in self._places.windows([(one, *at) for one, at in windows.items()]):
            said = read[partition]
            if not said[0]:
                said[2] = records[0].timestamp
            said[0] += len(records)
            said[1] += await asyncio.to_thread(_look_through, newest, wanted, records)
        for partition, (count, size, since) in read.items():
            newest.read(partition, windows[partition], since if count else None, count, size)


def _look_through(
    newest: Newest[TopicPartition, api.EventRecord], wanted: EventFilter, records: Sequence[ConsumerRecord[Any, Any]]
) -> int:
    """Offer the wanted events of some records; return how many bytes these have."""
    size = 0
    for record in records:
        headers = record.headers or ()
        size += len(record.value or b"") + len(record.key or b"") + OVERHEAD
        size += sum(len(name) + len(data or b"") for name, data in headers)
        place = (record.timestamp, record.partition, record.offset)
        if not newest.wants((*place, 2**31)):
            continue
        for index, event in enumerate(read_record(record.value, headers)):
            key = (*place, index)
            if isinstance(event, Event) and wanted.holds(event) and newest.wants(key):  # what is none is a dead letter
                newest.offer(key, shown(event, record))
    return size


def shown(event: Event, record: ConsumerRecord[Any, Any]) -> api.EventRecord:
    """Return an event as it is listed; of one that is longer than `SHOWN` the attributes that every event has."""
    whole = event.to_dict()
    try:
        size = len(msgspec.json.encode(whole))
    except (ValueError, TypeError, RecursionError):  # nested as deep as can be read
        size = max(SHOWN + 1, len(record.value or b""))
    if cut := size > SHOWN:
        whole = {name: whole[name] for name in ATTRIBUTES_SHOWN if name in whole}
    return api.EventRecord(
        event=whole,
        recorded=rfc3339(record.timestamp * 1_000_000),
        origin=origin_of(record.topic, record.partition, record.offset),
        left_out=size if cut else 0,
    )
