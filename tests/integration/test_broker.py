"""The embedded broker, a real one each time: data over restarts and kill -9, ports, leftovers, full disks."""

from __future__ import annotations

from upon.kafka.clients import async_producer
from upon.topics import Topics


async def test_session_fixtures(kafka: str, topics: Topics) -> None:
    async with async_producer(kafka, "test") as producer:
        sent = await producer.send_and_wait(topics.events, b"x")
    assert sent.offset == 0
