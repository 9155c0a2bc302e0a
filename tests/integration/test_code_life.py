"""The life of code: a dispatcher reads the bodies that it does not hold, the service deletes what nobody needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatching import PATIENCE, Fabric, HandDriven, dispatcher, fabric
from tests.services import Records, eventually, invocation, service
from upon import api
from upon.dispatcher import codes, protocol
from upon.dispatcher.codes import Codes
from upon.dispatcher.decisions import attempts
from upon.dispatcher.decisions.instructions import CodeGone, CodeKnown
from upon.kafka.clients import async_consumer, async_producer
from upon.kafka.follow import follow
from upon.messages import CODE_KEY, FunctionCode, FunctionRecord, InvocationBatch, registry_key
from upon.topics import Topics

MIB = 1024 * 1024
HOUR = 3600 * 10**9


def body(letter: str) -> FunctionCode:
    return FunctionCode(hash=letter * 3, body=letter.encode() * MIB, python="3.11")


async def test_few_bodies_are_held_and_the_others_are_read_again(kafka: str, topics: Topics) -> None:
    seen: asyncio.Queue[Any] = asyncio.Queue()
    held = Codes(seen.put_nowait, seen.put_nowait, limit=2 * MIB + 10)
    records = Records(kafka, topics)
    for letter in "abcd":
        await records.write(topics.registry, body(letter), key=registry_key(body(letter)))
    running = [
        asyncio.create_task(follow(kafka, "test", [topics.registry], held.take)),
        asyncio.create_task(held.read_bodies(kafka, "test", topics.registry)),
    ]
    try:
        async with asyncio.timeout(PATIENCE):
            assert [await seen.get() for _ in "abcd"] == [CodeKnown(letter * 3) for letter in "abcd"]
            assert held.want("ddd") == body("d")
            for letter in "ab":
                assert held.want(letter * 3) is None
                assert held.want(letter * 3) is None, "asked for twice, read once"
            assert [await seen.get() for _ in "ab"] == [body("a"), body("b")]
            assert (held.want("aaa"), held.want("bbb"), len(held._bodies)) == (body("a"), body("b"), 2)
            async with async_producer(kafka, "test") as producer:
                await producer.send_and_wait(topics.registry, None, key=b"code/ccc")
            assert await seen.get() == CodeGone("ccc")
            assert held.want("ccc") is None
            await records.write(topics.registry, body("c"), key=registry_key(body("c")))
            assert await seen.get() == CodeKnown("ccc")
            assert held.want("ccc") == body("c")
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_body_that_is_wanted_while_the_consumer_closes_is_read(
    kafka: str, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: asyncio.Queue[Any] = asyncio.Queue()
    held = Codes(seen.put_nowait, seen.put_nowait, limit=1)
    closing = ["bbb"]

    @asynccontextmanager
    async def wanting_at_the_end(kafka: str, client_id: str) -> AsyncIterator[Any]:
        async with async_consumer(kafka, client_id) as consumer:
            yield consumer
            if closing:
                assert held.want(closing.pop()) is None

    monkeypatch.setattr(codes, "async_consumer", wanting_at_the_end)
    records = Records(kafka, topics)
    for letter in "abc":
        await records.write(topics.registry, body(letter), key=registry_key(body(letter)))
    await follow(kafka, "test", [topics.registry], held.take, stop_at_end=True)
    assert [seen.get_nowait() for _ in "abc"] == [CodeKnown(letter * 3) for letter in "abc"]
    reading = asyncio.create_task(held.read_bodies(kafka, "test", topics.registry))
    try:
        async with asyncio.timeout(PATIENCE):
            assert held.want("aaa") is None
            assert [await seen.get() for _ in "ab"] == [body("a"), body("b")]
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Codes.__init__, "__defaults__", (1,))


async def test_a_manager_gets_a_body_that_its_dispatcher_does_not_hold(
    kafka: str, topics: Topics, tmp_path: Path, no_room: None
) -> None:
    async with fabric(kafka, topics.prefix, tmp_path) as f:
        for letter in "ab":
            await f.code(body(letter))
        async with dispatcher(f.settings) as address:
            manager = HandDriven(f.settings, address)
            try:
                manager.ready()
                await f.invoke("t", code="aaa")
                (task,) = await manager.tasks()
                assert (await manager.hear(protocol.Code)).code == body("a")
                manager.ended(task)
                assert (await f.result("t")).status == "succeeded"
            finally:
                manager.close()


async def test_code_that_goes_while_tasks_wait_is_said_clearly(
    kafka: str, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "CODE_PATIENCE", 1.0)
    async with fabric(kafka, topics.prefix, tmp_path) as f, dispatcher(f.settings) as address:
        await f.code(body("a"))
        manager = HandDriven(f.settings, address, slots=1)
        try:
            manager.ready()
            ids = [f"t{n}" for n in range(9)]
            await f.invoke(*ids, code="aaa")
            given = {task.id for task in await manager.tasks()}
            await _forget(f, kafka, "aaa")
            for id in ids:
                if id not in given:
                    await manager.beating_until(_not_found(f, id))
            manager.say(protocol.Need(("aaa",)))
            for id in given:
                await manager.beating_until(_not_found(f, id))
        finally:
            manager.close()


async def _not_found(f: Fabric, id: str) -> None:
    failed = await f.result(id)
    assert failed.failure is not None
    assert failed.failure.type == "FunctionNotFound"
    assert "register the function again" in failed.failure.message


async def _forget(f: Fabric, kafka: str, code: str) -> None:
    async with async_producer(kafka, "test") as producer:
        await producer.send_and_wait(f.settings.topics.registry, None, key=f"code/{code}".encode())


async def test_the_service_deletes_code_that_nobody_needs(kafka: str, topics: Topics, tmp_path: Path) -> None:
    records, now = Records(kafka, topics), time.time_ns()
    await records.announce()
    for hash, age in (("old", 30), ("named", 30), ("new", 1), ("queued", 20)):
        code = FunctionCode(hash=hash, body=b"b", python="3.11", created=now - age * HOUR)
        await records.write(topics.registry, code, key=registry_key(code))
    function = FunctionRecord(name="f", version=1, code="named")
    await records.write(topics.registry, function, key=registry_key(function))
    waits = InvocationBatch(site="local", submitted=now - 19 * HOUR, invocations=(invocation("waits", "queued"),))
    await records.invocations(waits)

    async with service(kafka, topics, tmp_path / "home", UPON_KEEP_CODE="8h") as running:

        async def submitted(code: str) -> str:
            """Return the class of the refusal, empty if there is none."""
            async with running.stream() as stream:
                ask = api.Submit(request=1, site="local", group="g", invocations=(invocation(f"t-{code}", code),))
                answer = await stream.ask(ask)
                return answer.problem.error if isinstance(answer, api.Refused) else ""

        async def dropped() -> bool:
            return await submitted("old") == "FunctionNotFound"

        await eventually(dropped, "old code is dropped")
        assert [await submitted(code) for code in ("named", "new", "queued")] == ["", "", ""]
    assert CODE_KEY + b"old" in await _tombstones(kafka, topics)
    assert len(await _tombstones(kafka, topics)) == 1


async def _tombstones(kafka: str, topics: Topics) -> list[bytes]:
    found: list[bytes] = []

    def take(record: Any) -> None:
        if record.value is None:
            found.append(record.key)

    await follow(kafka, "test", [topics.registry], take, stop_at_end=True)
    return found
