"""Pushing results to the clients that wait for them, straight from `upon.results`.

The push does not wait for the database, and the database does not wait for the push: each reads the topic itself.
A client attaches (it is subscribed from that moment), then gets what of its unfinished tasks is done already from
the store, once that is as new as the push was when it attached. So no result falls between; one may come twice.

Results of one group share a record, whose key is the group (`upon.topics`): they are handed on as they stand, and
nobody but the client decodes them.

Back-pressure: a client that does not read fills its bounded outgoing queue and is disconnected; when it attaches
again it gets from the store what it missed. A slow client never holds up the others.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

import msgspec
from aiokafka import ConsumerRecord, TopicPartition

from upon.errors import InputError
from upon.kafka.positions import Position
from upon.kafka.reader import Reader, reading
from upon.logs import get_logger
from upon.messages import Message, ResultBatch, Started, decode, encode
from upon.msgpack_arrays import Elements, elements
from upon.service.store.projection import Positions
from upon.topics import Topics

log = get_logger(__name__)


class _Batch(Message, frozen=True, kw_only=True):
    """A `ResultBatch` whose results stay as they are."""

    format: int = 1
    site: str
    results: msgspec.Raw = msgspec.Raw(b"\x90")
    started: tuple[Started, ...] = ()


class Receiver(Protocol):
    """A connection that takes results."""

    def push(self, results: Elements) -> None:
        """Queue results; must not block and must not raise."""

    def begun(self, ids: list[str]) -> None:
        """Queue the news that these tasks have begun; must not block and must not raise."""


class Hub:
    """Hands each result to the connections attached to its group.

    Args:
        kafka: bootstrap address.
        topics: the deployment's topics.
    """

    def __init__(self, kafka: str, topics: Topics) -> None:
        self._kafka, self._topics = kafka, topics
        self._attached: dict[str, set[Receiver]] = defaultdict(set)
        self._positions: Positions = {}

    async def run(self, started: asyncio.Event) -> None:
        """Push until cancelled, from the results that come now on; begun again, it goes on where it was.

        Raises:
            KafkaUnavailable: no broker answers at the start.
        """
        async with reading(
            self._kafka,
            "upon-service-push",
            [self._topics.results],
            start=self._start,
            spec_of=self._topics.spec_of,
        ) as reader:
            for one, at in reader.positions.items():
                self._positions[one.topic, one.partition] = at.offset
            started.set()
            while True:
                for records in await reader.next(5.0):
                    for record in records:
                        self._take(record)

    async def _start(self, reader: Reader, partitions: list[TopicPartition]) -> Mapping[TopicPartition, Position]:
        """Begin at the end; begun again, where it was."""
        there = {one: self._positions.get((one.topic, one.partition), reader.ends[one]) for one in partitions}
        return {one: Position(offset) for one, offset in there.items()}

    def attach(self, group: str, receiver: Receiver) -> Positions:
        """Push a group's results from now on; return the positions up to which they were handed out before."""
        self._attached[group].add(receiver)
        return self.pushed

    @property
    def pushed(self) -> Positions:
        """The positions up to which results were handed out."""
        return dict(self._positions)

    def detach(self, receiver: Receiver, groups: set[str]) -> None:
        """Push nothing more to a connection."""
        for group in groups:
            receivers = self._attached.get(group, set())
            receivers.discard(receiver)
            if not receivers:
                self._attached.pop(group, None)

    def _take(self, record: ConsumerRecord) -> None:
        self._positions[record.topic, record.partition] = record.offset + 1
        if not self._attached:
            return
        try:
            if not record.key:
                self._take_apart(decode(record.value or b"", ResultBatch))
            elif receivers := self._attached.get(record.key.decode(errors="replace")):
                batch = decode(record.value or b"", _Batch)
                self._hand_over(receivers, elements(memoryview(batch.results)), [one.id for one in batch.started])
        except InputError:
            return  # the projector buries it

    def _take_apart(self, batch: ResultBatch) -> None:
        """Take results of whichever groups."""
        results: dict[str, list[bytes]] = defaultdict(list)
        begun: dict[str, list[str]] = defaultdict(list)
        for result in batch.results:
            results[result.group].append(encode(result))
        for started in batch.started:
            begun[started.group].append(started.id)
        for group in self._attached.keys() & (results.keys() | begun.keys()):
            found = results[group]
            self._hand_over(self._attached[group], Elements(len(found), b"".join(found)), begun[group])

    @staticmethod
    def _hand_over(receivers: set[Receiver], results: Elements, begun: list[str]) -> None:
        for receiver in list(receivers):
            if begun:
                receiver.begun(begun)
            if results.count:
                receiver.push(results)
