"""Choices of sites: the first in the log counts, for everybody who reads it."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from upon.errors import KafkaError
from upon.kafka.batches import Entry, Lane, Place
from upon.messages import SiteChoices, decode, encode
from upon.streams.choices import Choices

A, B, C = (str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in "abc")


class Log:
    """A log with two readers, in place of Kafka: what is posted gets an offset, and is read when the test says so."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.readers = [Choices("choices"), Choices("choices")]
        self.read = [0, 0]
        self.refuses = False

    def post(self, lane: Lane, entry: Entry) -> None:
        assert entry.body is not None
        assert entry.then is not None
        if self.refuses:
            entry.then(KafkaError("no room"))
            return
        self.records.append(entry.body)
        entry.then(Place(lane.topic, 0, len(self.records) - 1))

    def deliver(self, reader: int) -> None:
        for offset in range(self.read[reader], len(self.records)):
            self.readers[reader].take(self.records[offset], offset)
        self.read[reader] = len(self.records)

    def settle(self, reader: int, **proposed: str) -> asyncio.Task[dict[str, str]]:
        ids = {"a": A, "b": B, "c": C}
        outbox: Any = self
        return asyncio.create_task(self.readers[reader].settle({ids[n]: s for n, s in proposed.items()}, outbox))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_of_two_workers_at_the_same_time_the_first_in_the_log_is_right() -> None:
    log = Log()
    first, second = log.settle(0, a="alcf", b="alcf"), log.settle(1, b="local", c="local")
    await turn()
    assert not first.done(), "nothing is decided before it was read back"
    log.deliver(1)
    log.deliver(0)
    assert await first == {A: "alcf", B: "alcf"}
    assert await second == {B: "alcf", C: "local"}


async def test_what_was_chosen_is_not_written_again() -> None:
    log = Log()
    first = log.settle(0, a="alcf")
    await turn()
    log.deliver(0)
    await first
    again = log.settle(0, a="local")
    assert await again == {A: "alcf"}
    assert [decode(one, SiteChoices).sites for one in log.records] == [{A: "alcf"}]


async def test_a_paused_worker_finds_what_another_chose_meanwhile() -> None:
    log = Log()
    other = log.settle(1, a="local")
    await turn()
    late = log.settle(0, a="alcf")
    await turn()
    log.deliver(0)
    log.deliver(1)
    assert await other == await late == {A: "local"}


async def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    log = Log()
    log.refuses = True
    assert await log.settle(0, a="alcf") == {A: "alcf"}


def test_other_records_are_passed_over_and_the_oldest_are_forgotten() -> None:
    choices = Choices("choices", remembered=2)
    choices.take(b"\xc1", 0)
    choices.take(None, 1)
    choices.take(encode(SiteChoices(sites={"no uuid": "x"})), 2)
    for offset, id in enumerate((A, B, C), 3):
        choices.take(encode(SiteChoices(sites={id: "alcf"})), offset)
    assert [choices.site(id) for id in (A, B, C)] == [None, "alcf", "alcf"]
