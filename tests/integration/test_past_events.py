"""Events of the past, read back from a real Kafka through the service, and within a budget."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import pytest_asyncio

from tests.services import Records, Running, service
from upon import api
from upon.events import Event, rfc3339, time_ns
from upon.ids import new_id
from upon.kafka.admin import ensure_topics
from upon.kafka.clients import async_consumer
from upon.kafka.ends import Ends
from upon.kafka.places import Places
from upon.kafka.settings import async_producer
from upon.service.past_events import EventFilter, PastEvents
from upon.topics import Topics


@pytest.fixture(scope="module")
def module_topics(kafka: str) -> Topics:
    return Topics(f"past-{new_id()[:8]}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(kafka: str, module_topics: Topics) -> AsyncIterator[Running]:
    await ensure_topics(kafka, [*module_topics.shared(3), *module_topics.of_site("local", 1)])
    async with service(kafka, module_topics) as one:
        yield one


def event(type: str, n: int, **fields: Any) -> Event:
    given: dict[str, Any] = {"type": type, "source": f"/lab/{n % 2}", "subject": f"s{n % 7}", "id": f"{type}-{n}"}
    return Event(**given | fields)


async def publish(running: Running, *events: Event) -> None:
    await running.ask("POST", "/v1/events", [one.to_dict() for one in events], status=202)


async def past(running: Running, **query: Any) -> api.PastEvents:
    found = await running.ask("GET", f"/v1/events?{urlencode(query, doseq=True)}")
    return msgspec.convert(found, api.PastEvents)


def ids(found: api.PastEvents) -> list[str]:
    return [one.event["id"] for one in found.events]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_newest_come_last_and_are_chosen_by_what_they_are(running: Running) -> None:
    for n in range(60):
        await publish(running, event("a.x", n), event("a.y", n))
    everything = [f"a.{kind}-{n}" for n in range(60) for kind in "xy"]
    whole = await past(running, type="a.*", limit=1000)
    assert sorted(ids(whole)) == sorted(everything)
    assert [one.recorded for one in whole.events] == sorted(one.recorded for one in whole.events)
    assert (whole.more, whole.complete_since) == (False, None)
    assert ids(await past(running, type="a.x", limit=1000)) == [f"a.x-{n}" for n in range(60)]
    newest = await past(running, type="a.x", limit=5)
    assert (ids(newest), newest.more) == ([f"a.x-{n}" for n in range(55, 60)], True)
    assert sorted(ids(await past(running, type=["a.x", "a.y"], limit=1000))) == sorted(everything)
    assert ids(await past(running, type="a.x", source="/lab/1", subject="s3")) == [
        "a.x-3",
        "a.x-17",
        "a.x-31",
        "a.x-45",
        "a.x-59",
    ]
    assert len(ids(await past(running, subject="s*"))) == 50
    assert ids(await past(running, type="a")) == []
    one = whole.events[70]
    assert one.origin.startswith(running.topics.events)
    since = await past(running, type="a.*", since=one.recorded, limit=1000)
    until = await past(running, type="a.*", until=one.recorded, limit=1000)
    assert {one.event["id"]} <= set(ids(since)) & set(ids(until))
    assert set(ids(since)) | set(ids(until)) == set(everything)
    assert all(found.recorded >= one.recorded for found in since.events)
    assert all(found.recorded <= one.recorded for found in until.events)
    assert ids(await past(running, since=rfc3339(time.time_ns() + 10**12))) == []
    assert ids(await past(running, until="1971-01-01T00:00:00Z")) == []
    assert len(ids(await past(running, since="0001-01-01T00:00:00Z", until="9999-12-31T23:59:59Z"))) == 50


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_asked_wrongly_is_said(running: Running) -> None:
    for wrong in ("since=noon", "limit=0", "limit=1001", "types=a"):
        said = await running.refused("GET", f"/v1/events?{wrong}", status=400)
        assert said.error == "InputError"


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_no_event_or_too_long_hides_no_other(running: Running, kafka: str) -> None:
    long, deep = (
        "x" * 200_000,
        b'{"specversion":"1.0","id":"deep","type":"b","source":"/","data":' + b"[" * 900 + b"]" * 900 + b"}",
    )
    records = Records(kafka, running.topics)
    await publish(running, event("b", 0), event("b", 1, data=long, extensions={"one": "1"}))
    await records.write(running.topics.events, b"\xff no event", b"", b"[1]", deep)
    await publish(running, event("b", 2, data=b"\x00"))
    found = await past(running, type="b")
    assert sorted(ids(found)) == ["b-0", "b-1", "b-2", "deep"]
    (cut,) = [one for one in found.events if one.event["id"] == "b-1"]
    assert cut.left_out > 200_000
    assert set(cut.event) == {"specversion", "id", "source", "type", "subject", "time"}
    assert found.events[-1].event["data_base64"] == "AA=="


@pytest.mark.asyncio(loop_scope="module")
async def test_offsets_without_a_record_are_passed_over(running: Running, kafka: str) -> None:
    """A transaction's end takes an offset: here the last one of the log."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(**async_producer(kafka, "test"), transactional_id=f"{running.topics.prefix}-foreign")
    await producer.start()
    try:
        for n in range(3):
            async with producer.transaction():
                await producer.send_and_wait(
                    running.topics.events, msgspec.json.encode(event("c", n).to_dict()), partition=0
                )
    finally:
        await producer.stop()
    assert ids(await past(running, type="c")) == ["c-0", "c-1", "c-2"]
    assert ids(await past(running, type="c", limit=1)) == ["c-2"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_spent_budget_is_said_and_the_rest_can_be_asked_for(running: Running, kafka: str) -> None:
    for n in range(40):
        await publish(running, event("d", n, data="x" * 10_000), event("other", n, data="x" * 10_000))
    async with async_consumer(kafka, "test-ends") as consumer:
        ends = Ends(kafka, consumer)
        past_events = PastEvents(running.topics.events, ends, Places(kafka, "test-places", ends), room=200_000)
        seen: set[str] = set()
        until: int | None = None
        for _ in range(100):
            found = await past_events.list(EventFilter(types=("d",), until=until), 1000)
            seen |= set(ids(found))
            if found.complete_since is None:
                break
            assert len(found.events) < 40
            until = time_ns(found.complete_since)
        assert seen == {f"d-{n}" for n in range(40)}
