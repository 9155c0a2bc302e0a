"""The publisher on a real Kafka: order, gathering, acknowledgement, and what a broker refuses."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions

from tests.reading import EventReader, reading
from tests.systems import wait_for
from upon.errors import EventError, PayloadTooLarge
from upon.events import Event
from upon.kafka import settings
from upon.kafka.admin import admin_client, ensure_topics
from upon.kafka.clients import async_consumer
from upon.messages import MAX_RECORD, DeadLetter, decode
from upon.topics import Topics, TopicSpec
from upon.triggers import publisher as module
from upon.triggers.publisher import Publisher
from upon.triggers.source import Stopped


@pytest.fixture
def publisher(kafka: str, topics: Topics) -> Iterator[Publisher]:
    one = Publisher(kafka, topics)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def reader(kafka: str, topics: Topics) -> Iterator[EventReader]:
    with reading(kafka, topics) as one:
        yield one


def event(key: int | str, data: object = None) -> Event:
    return Event(type="t", source="/s", subject=str(key), data=data)


def test_an_event_is_acknowledged_when_kafka_has_it(publisher: Publisher, reader: EventReader) -> None:
    safe = threading.Event()
    publisher.publish(event("k", {"a": [1]}), safe.set)
    assert safe.wait(30)
    assert [e.data for e in reader.until(bool, "the event")] == [{"a": [1]}]
    assert publisher.outstanding == 0


def test_under_light_load_each_event_has_a_record_of_its_own(publisher: Publisher, reader: EventReader) -> None:
    for n in range(5):
        publisher.publish(event("k", n))
        assert publisher.flush(30)
    reader.until(lambda events: len(events) == 5, "the events")
    assert reader.records == [1] * 5


def test_under_load_events_share_records_and_keep_the_order_of_each_key(
    publisher: Publisher, reader: EventReader
) -> None:
    count = 5000

    def publish(t: int) -> None:
        for n in range(count):
            publisher.publish(event(f"{t}-{n % 7}", n))

    threads = [threading.Thread(target=publish, args=(t,)) for t in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.flush(60)
    reader.until(lambda events: len(events) == 2 * count, "all events")
    assert max(reader.records) > 1
    assert len(reader.records) < count
    of_key: dict[str, list[int]] = {}
    for e in reader.events:
        of_key.setdefault(str(e.subject), []).append(e.data)
    assert all(numbers == sorted(numbers) for numbers in of_key.values())


def test_what_can_never_be_stored_is_refused_at_once(publisher: Publisher) -> None:
    with pytest.raises(EventError, match="not JSON-serializable"):
        publisher.publish(event("k", object()))
    with pytest.raises(PayloadTooLarge, match="does not fit: a record of"):
        publisher.publish(event("k", "x" * MAX_RECORD))
    assert publisher.outstanding == 0


def test_a_full_publisher_blocks_until_it_is_closed(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 10)
    nowhere = Publisher("127.0.0.1:9", topics)
    accepted: list[int] = []
    refused = threading.Event()

    def publish() -> None:
        try:
            for n in range(11):
                nowhere.publish(event("k", n))
                accepted.append(n)
        except Stopped:
            refused.set()

    thread = threading.Thread(target=publish)
    thread.start()
    wait_for(lambda: len(accepted) >= 10, "ten events taken", timeout=30)
    assert not refused.wait(0.2)
    assert nowhere.close(0.1) is False
    thread.join(30)
    assert refused.is_set()
    assert nowhere.outstanding == 10


async def test_what_the_broker_refuses_is_a_dead_letter_and_holds_up_nothing(kafka: str, topics: Topics) -> None:
    small = Topics(f"{topics.prefix}-small")
    await ensure_topics(
        kafka, [TopicSpec(small.events, 1, {"max.message.bytes": "20000"}), TopicSpec(small.deadletter, 1)]
    )
    publisher = Publisher(kafka, small)
    try:
        safe: list[int] = []
        sizes = [1, 1000, 50_000, 1000, 15_000, 15_000, 1]
        for n, size in enumerate(sizes):
            publisher.publish(event("k", f"{n}" + "x" * size), lambda n=n: safe.append(n))  # type: ignore[misc]
        assert await asyncio.to_thread(publisher.flush, 60)
        assert sorted(safe) == list(range(7))
    finally:
        publisher.close()
    with reading(kafka, small) as reader:
        reader.until(lambda events: len(events) == 6, "the others")
        assert [e.data[0] for e in reader.events] == ["0", "1", "3", "4", "5", "6"]
    async with async_consumer(kafka, "test", [small.deadletter]) as consumer:
        letter = decode((await asyncio.wait_for(consumer.getone(), 30)).value, DeadLetter)
    assert letter.part == "sources"
    assert "the broker refuses 50" in letter.reason
    assert b'"2xxx' in letter.value


async def test_a_topic_that_comes_later_is_waited_for(kafka: str, topics: Topics) -> None:
    later = Topics(f"{topics.prefix}-later")
    publisher = Publisher(kafka, later)
    try:
        publisher.publish(event("k", 1))
        assert not publisher.flush(0.5)
        await ensure_topics(kafka, [TopicSpec(later.events, 2)])
        assert await asyncio.to_thread(publisher.flush, 60)
    finally:
        publisher.close()


async def test_partitions_that_are_added_get_events_too(
    kafka: str, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "LOOK_MS", 200)
    few = Topics(f"{topics.prefix}-few")
    await ensure_topics(kafka, [TopicSpec(few.events, 1)])
    publisher = Publisher(kafka, few)
    try:
        publisher.publish(event("k"))
        assert await asyncio.to_thread(publisher.flush, 30)
        async with admin_client(kafka) as admin:
            await admin.create_partitions({few.events: NewPartitions(2)})
        async with async_consumer(kafka, "test") as consumer:
            consumer.assign([TopicPartition(few.events, 1)])
            async with asyncio.timeout(60):
                subjects = (str(n) for n in itertools.count())
                while not await consumer.getmany(timeout_ms=100):
                    publisher.publish(event(next(subjects)))
    finally:
        publisher.close()


def test_an_unexpected_end_of_its_thread_is_told_and_leaves_nobody_waiting(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(publisher._lanes, "done", broken)
    publisher.check()
    publisher.publish(event("k", 1))
    assert publisher.flush(30) is False
    with pytest.raises(ZeroDivisionError, match="a bug"):
        publisher.check()
    with pytest.raises(Stopped):
        publisher.publish(event("k", 2))
