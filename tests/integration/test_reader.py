"""Reading topics that change while they are read: more partitions, deleted, made anew, made anew while away."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions

from tests.services import eventually
from upon.kafka.admin import admin_client, ensure_topics
from upon.kafka.clients import async_producer
from upon.kafka.follow import AT_ONCE, follow
from upon.kafka.positions import Position
from upon.kafka.reader import Reader, reading
from upon.topics import Topics, TopicSpec

DEADLINE = 60.0


async def write(kafka: str, topic: str, *values: bytes, partition: int = 0) -> None:
    async with async_producer(kafka, "test") as producer:
        while partition not in await producer.partitions_for(topic):
            await producer.client.force_metadata_update()
        for value in values:
            await producer.send_and_wait(topic, value, partition=partition)


async def read(reader: Reader, count: int) -> list[bytes]:
    """Return what comes, once there are `count` records."""
    found: list[bytes] = []
    async with asyncio.timeout(DEADLINE):
        while len(found) < count:
            found += [record.value or b"" for records in await reader.next(0.5) for record in records]
    return found


async def test_new_partitions_are_taken_up_while_reading(kafka: str, topics: Topics) -> None:
    async with reading(kafka, "test", [topics.control("local")]) as reader, admin_client(kafka) as admin:
        await write(kafka, topics.control("local"), b"a")
        assert await read(reader, 1) == [b"a"]
        await admin.create_partitions({topics.control("local"): NewPartitions(3)})
        await write(kafka, topics.control("local"), b"b", b"c", partition=2)
        assert await read(reader, 2) == [b"b", b"c"]


async def test_a_topic_that_is_added_while_reading_begins_where_it_shall(kafka: str, topics: Topics) -> None:
    """Whoever reads meanwhile does not take it for new, and read it from its beginning."""
    topic, asked, read_on = topics.control("local"), asyncio.Event(), asyncio.Event()
    await write(kafka, topic, b"0", b"1", b"2")

    async def start(reader: Reader, partitions: list[TopicPartition]) -> dict[TopicPartition, Position]:
        if partitions[0].topic != topic:
            return dict.fromkeys(partitions, Position(0))
        asked.set()
        await read_on.wait()
        return dict.fromkeys(partitions, Position(2))

    async with reading(kafka, "test", [topics.deadletter], start=start) as reader:
        adding = asyncio.create_task(reader.add([topic]))
        async with asyncio.timeout(DEADLINE):
            while not asked.is_set():
                assert await reader.next(0.1) == []
        for sign in (b"first", b"second"):  # who has read the second has asked for all that it reads since `asked`
            await write(kafka, topics.deadletter, sign)
            assert await read(reader, 1) == [sign]
        read_on.set()
        await adding
        assert await read(reader, 1) == [b"2"]


async def test_a_deleted_topic_is_made_anew_and_read_from_its_beginning(kafka: str, topics: Topics) -> None:
    topic = topics.control("local")
    await write(kafka, topic, b"old", b"old")
    async with reading(kafka, "test", [topic], spec_of=topics.spec_of) as reader, admin_client(kafka) as admin:
        assert await read(reader, 2) == [b"old", b"old"]
        await admin.delete_topics([topic])
        seen: list[bytes] = []

        async def back() -> bool:
            seen.extend(record.value or b"" for records in await reader.next(0.2) for record in records)
            return topic in await admin.list_topics()

        await eventually(lambda: gone(reader, topic), "the reader sees that it is gone", DEADLINE)
        await eventually(back, "the topic is made anew", DEADLINE)
        await write(kafka, topic, b"1", b"2", b"3")
        assert [*seen, *await read(reader, 3 - len(seen))] == [b"1", b"2", b"3"]


async def gone(reader: Reader, topic: str) -> bool:
    await reader.next(0.2)
    return topic in reader.missing or not reader.partitions


async def test_a_committed_position_that_the_log_does_not_have_is_corrected(kafka: str, topics: Topics) -> None:
    """A topic made anew stands for a log whose end was lost: the committed position is past its end, or names
    another record."""
    topic, group = f"{topics.prefix}.log", f"{topics.prefix}.group"
    await ensure_topics(kafka, [TopicSpec(topic, 1, {"message.timestamp.type": "LogAppendTime"})])
    await write(kafka, topic, b"1", b"2")

    async def start(reader: Reader, partitions: list[object]) -> dict[object, Position]:
        return dict(await reader.committed(partitions))  # type: ignore[arg-type]

    async with reading(kafka, "test", [topic], group=group, start=start) as reader:
        assert await read(reader, 2) == [b"1", b"2"]
        (one,) = reader.partitions
        intact, time = reader.at(one, 2), reader.at(one, 2).time
        assert time is not None
        await reader.commit({one: intact})
    await write(kafka, topic, b"3")
    async with reading(kafka, "test", [topic], group=group, start=start) as reader:
        assert await read(reader, 1) == [b"3"], "intact: it goes on"
        await reader.commit({one: Position(3, time - 10_000)})  # as if the log's end, with older records, was lost
    async with reading(kafka, "test", [topic], group=group, start=start) as reader:
        assert await read(reader, 3) == [b"1", b"2", b"3"], "what came after the last that was read is new"
        await reader.commit({one: Position(40, reader.positions[one].time)})
    async with reading(kafka, "test", [topic], group=group, start=start) as reader:
        await write(kafka, topic, b"4")
        assert (await read(reader, 1))[-1] in (b"3", b"4"), "nothing is skipped: read again is what may be new"


async def test_who_follows_a_long_topic_gives_others_their_turn(kafka: str, topics: Topics) -> None:
    async with async_producer(kafka, "test") as producer:
        sent = [await producer.send(topics.registry, b"", key=str(n).encode()) for n in range(10 * AT_ONCE)]
        await asyncio.gather(*sent)
    taken: list[object] = []
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(taken))
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await asyncio.wait_for(follow(kafka, "test", [topics.registry], taken.append, stop_at_end=True), DEADLINE)
    other.cancel()
    assert len(taken) == 10 * AT_ONCE
    assert max(after - before for before, after in pairwise(turns)) <= AT_ONCE
