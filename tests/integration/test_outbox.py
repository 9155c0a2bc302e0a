"""The outbox on real Kafka: order, true sizes, topics that are away, topics that are deleted, records too large."""

from __future__ import annotations

import asyncio

import pytest

from tests.services import Records, eventually
from upon.errors import PayloadTooLarge
from upon.kafka.acks import TopicMissing
from upon.kafka.admin import admin_client, ensure_topics
from upon.kafka.batches import Entry, Lane, Place
from upon.kafka.forms import EVENTS, WHOLE, invocation_entry, invocations_lane
from upon.kafka.outbox import Outbox
from upon.messages import Invocation, InvocationBatch
from upon.topics import Topics, TopicSpec


def lane(topics: Topics, site: str = "local") -> Lane:
    return invocations_lane(topics.invocations(site), site=site, group="", principal="p", code="c")


def invocation(number: int, size: int = 10) -> Invocation:
    return Invocation(id=str(number), code="c", function="f", payload=b"x" * size)


async def test_many_invocations_travel_in_order_and_in_few_records(kafka: str, topics: Topics) -> None:
    async with Outbox(kafka, "test") as outbox:
        acks = [await outbox.send(lane(topics), invocation_entry(invocation(n), n)) for n in range(10_000)]
        places = await asyncio.gather(*acks)
    batches = await Records(kafka, topics).read(topics.invocations("local"), InvocationBatch, len(set(places)))
    assert [int(one.id) for batch in batches for one in batch.invocations] == list(range(10_000))
    assert len(batches) < 200
    assert len(batches[0].invocations) == 1, "the first one left at once"


async def test_a_missing_topic_delays_nobody_else_and_fails_after_a_while(kafka: str, topics: Topics) -> None:
    async with Outbox(kafka, "test") as outbox:
        await outbox.put(topics.control("local"), b"warm")
        lost = [await outbox.send(lane(topics, "mars"), invocation_entry(invocation(n), n)) for n in range(20)]
        meanwhile = -1  # the last one may come after it
        while not lost[0].done():
            await outbox.put(topics.control("local"), b"x")
            meanwhile += 1
        assert all(isinstance(one, TopicMissing) for one in await asyncio.gather(*lost, return_exceptions=True))
        assert meanwhile > 0, "a lookup that others wait for takes PATIENCE"
        with pytest.raises(TopicMissing, match="mars does not exist"):
            await outbox.put(topics.invocations("mars"), b"x")


async def test_a_topic_of_a_known_site_is_made(kafka: str, topics: Topics) -> None:
    async with Outbox(kafka, "test", spec_of=topics.spec_of) as outbox:
        place = await (await outbox.send(lane(topics, "moon"), invocation_entry(invocation(1), 1)))
    assert place.topic == topics.invocations("moon")
    assert len(await Records(kafka, topics).read(place.topic, InvocationBatch, 1)) == 1


async def test_a_topic_that_is_deleted_under_way_is_made_anew_and_others_go_on(kafka: str, topics: Topics) -> None:
    topic = topics.invocations("local")
    async with Outbox(kafka, "test", spec_of=topics.spec_of) as outbox, admin_client(kafka) as admin:
        await (await outbox.send(lane(topics), invocation_entry(invocation(0), 0)))
        await admin.delete_topics([topic])

        async def gone() -> bool:
            return topic not in await admin.list_topics()

        await eventually(gone, "the topic is gone")
        acks = [await outbox.send(lane(topics), invocation_entry(invocation(n), n)) for n in range(1, 50)]
        await outbox.put(topics.control("local"), b"x")
        async with asyncio.timeout(60):
            await asyncio.gather(*acks)
        records = len({ack.result() for ack in acks})
        await asyncio.gather(asyncio.ensure_future(outbox.put(topics.control("local"), b"y")))
    found = await Records(kafka, topics).read(topic, InvocationBatch, records)
    ids = [int(one.id) for batch in found for one in batch.invocations]
    assert [n for n in ids if n] == list(range(1, 50))


async def test_a_broker_with_a_smaller_limit_gets_halves_and_only_what_is_too_large_fails(
    kafka: str, topics: Topics
) -> None:
    small = f"{topics.prefix}.small"
    await ensure_topics(kafka, [TopicSpec(small, 1, {"max.message.bytes": "1000000"})])
    whole = Lane(small, EVENTS, partition=0)
    async with Outbox(kafka, "test") as outbox:
        first = await outbox.send(whole, Entry(b"0"))
        sizes = [400_000, 500_000, 2_000_000, 10, 600_000, 300_000, 10]
        acks = [await outbox.send(whole, Entry(str(n).encode().rjust(size))) for n, size in enumerate(sizes, 1)]
        outcomes = await asyncio.gather(first, *acks, return_exceptions=True)
    assert [isinstance(one, Place) for one in outcomes] == [True, True, True, False, True, True, True, True]
    assert isinstance(outcomes[3], PayloadTooLarge)


async def test_what_nobody_waits_for_is_dropped_and_what_is_full_makes_wait(kafka: str, topics: Topics) -> None:
    async with Outbox(kafka, "test", max_bytes=10_000_000) as outbox:
        # A topic that is looked for holds its records back: the place to look at what waits.
        away = lane(topics, "mars")
        acks = [await outbox.send(away, invocation_entry(invocation(n, 1_000_000), n)) for n in range(10)]
        waiting = asyncio.create_task(outbox.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert outbox.waiting == 10
        for ack in acks[1:]:
            ack.cancel()
        await waiting
        assert outbox.waiting == 1
        assert isinstance((await asyncio.gather(acks[0], return_exceptions=True))[0], TopicMissing)


async def test_an_unexpected_end_of_a_task_is_told(kafka: str, topics: Topics) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    async with Outbox(kafka, "test") as outbox:
        outbox.post(Lane(topics.control("local"), WHOLE), Entry(b"x", broken))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(outbox.failed(), 30)
