"""A rule that Kafka had before an event, and the worker only after it: the event fires it, once, and is done then."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.streams_worker import functions_and_rules, invocations, publish, register
from tests.integration.test_streams import committed
from tests.services import eventually
from upon.config import Settings
from upon.events import Event
from upon.kafka.follow import follow
from upon.messages import Invocation
from upon.part import Part
from upon.streams import app
from upon.streams import following as following_module
from upon.topics import Topics

DEADLINE = 60.0
FIRST = """
rules:
  - name: first
    upon: {type: [sample.ready]}
    run: {function: lab.first}
"""
SECOND = """
rules:
  - name: second
    upon: {type: [sample.ready]}
    run: {function: lab.second}
"""


class ReadyPart(Part):
    def __init__(self) -> None:
        super().__init__("streams")
        self.is_ready = asyncio.Event()

    def ready(self, **info: Any) -> None:
        self.is_ready.set()


class Gate:
    """Holds records of the registry up, between Kafka and those who follow it."""

    def __init__(self, registry: str) -> None:
        self._registry = registry
        self._held: list[Callable[[], None]] | None = None

    async def follow(
        self, kafka: str, client_id: str, topics: Any, on_record: Callable[[Any], None], **how: Any
    ) -> None:
        def take(record: Any) -> None:
            if self._held is not None and record.topic == self._registry:
                self._held.append(lambda: on_record(record))
            else:
                on_record(record)

        await follow(kafka, client_id, topics, take, **how)

    def close(self) -> None:
        self._held = []

    def open(self) -> None:
        held, self._held = self._held, None
        for take in held or ():
            take()


@pytest.fixture
def gate(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate(topics.registry)
    monkeypatch.setattr(following_module, "follow", gate.follow)
    return gate


@asynccontextmanager
async def worker(kafka: str, topics: Topics, home: Path) -> AsyncIterator[None]:
    part, interval = ReadyPart(), sys.getswitchinterval()
    running = asyncio.create_task(app.main(part, Settings(home=home, kafka=kafka, prefix=topics.prefix)))
    ready = asyncio.create_task(part.is_ready.wait())
    await asyncio.wait({running, ready}, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    assert ready.done()
    try:
        yield
    finally:
        part.stopping.set()
        await asyncio.wait_for(running, DEADLINE)
        sys.setswitchinterval(interval)


def fired(rule: str) -> Callable[[list[Invocation]], bool]:
    return lambda found: rule in rules(found)


def rules(found: list[Invocation]) -> list[str]:
    return [one.cause.rule for one in found if one.cause]


async def done(kafka: str, topics: Topics) -> None:
    """Wait until the event is committed."""

    async def is_committed() -> bool:
        return await committed(kafka, topics) == 1

    await eventually(is_committed, "the event is committed", DEADLINE)


def functions(yaml: str, number: int) -> list[Any]:
    return functions_and_rules(yaml, "lab.first", "lab.second", number=number)


EVENT = json.dumps(Event(type="sample.ready", source="/lab", id="e1", subject="S-1").to_dict()).encode()


async def event_before_its_rule(kafka: str, topics: Topics, gate: Gate) -> None:
    """Kafka has the second rule, and then the event; the worker hears of the event alone."""
    gate.close()
    register(kafka, topics, functions(SECOND, 2))
    await publish(kafka, topics.events, EVENT)


async def test_a_rule_that_reaches_the_worker_after_an_event_fires_once(
    kafka: str, topics: Topics, gate: Gate, tmp_path: Path
) -> None:
    register(kafka, topics, functions(FIRST, 1), "local")
    async with worker(kafka, topics, tmp_path):
        await event_before_its_rule(kafka, topics, gate)
        assert rules(await invocations(kafka, topics, fired("first"))) == ["first"], "it is judged at once"
        gate.open()
        await invocations(kafka, topics, fired("second"))
        await done(kafka, topics)
    assert sorted(rules(await invocations(kafka, topics, fired("second")))) == ["first", "second"]


async def test_a_worker_that_ends_before_the_rule_reaches_it_leaves_the_event_to_the_next(
    kafka: str, topics: Topics, gate: Gate, tmp_path: Path
) -> None:
    register(kafka, topics, functions(FIRST, 1), "local")
    async with worker(kafka, topics, tmp_path):
        await event_before_its_rule(kafka, topics, gate)
        await invocations(kafka, topics, fired("first"))
    assert await committed(kafka, topics) == 0
    gate.open()
    async with worker(kafka, topics, tmp_path):
        found = await invocations(kafka, topics, fired("second"))
        await done(kafka, topics)
    assert len({one.id for one in found}) == 2
