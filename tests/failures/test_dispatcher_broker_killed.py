"""kill -9 of the broker while the dispatcher works: it goes on by itself when the broker is back, nothing is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.dispatching import HandDriven, dispatcher_process, fabric
from tests.integration.test_dispatcher import committed, free_address
from upon.dispatcher import protocol
from upon.dispatcher.protocol import Attempt
from upon.embedded.broker.broker import Broker
from upon.kafka.admin import ensure_topics
from upon.topics import Topics


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of this test's own, which it may kill."""
    started = Broker(tmp_path / "kafka")
    started.start()
    try:
        started.wait_ready(60)
        yield started
    finally:
        started.stop()


async def test_results_of_the_time_without_a_broker_are_stored_when_it_is_back(broker: Broker, tmp_path: Path) -> None:
    names = Topics("t")
    await ensure_topics(broker.address, [*names.shared(), *names.of_site("local")])
    address = free_address()
    ids = [f"t{number}" for number in range(40)]
    async with fabric(broker.address, "t", tmp_path / "home") as f:
        process = dispatcher_process(f.settings, address)
        manager = HandDriven(f.settings, address, slots=40)
        try:
            manager.ready()
            await f.invoke(*ids[:20])
            await f.invoke(*ids[20:])
            tasks = await manager.tasks(40)
            for task in tasks[:10]:
                manager.ended(task)
            for task in tasks[:10]:
                await f.result(task.id)
            broker.kill()
            for task in tasks[10:]:
                manager.ended(task)
            manager.say(protocol.Heartbeat(0))
            await manager.hear(protocol.Beat)  # the dispatcher is alive without its broker
            await manager.beating_until(asyncio.to_thread(broker.start))
            assert await manager.beating_until(broker.wait_ready_async(60))
            while len(manager.stored) < 40:
                await manager.hear(protocol.Stored)
            await f.invoke("after")
            (after,) = await manager.tasks()
            assert after.id == "after"
            manager.ended(after)
            await f.result("after")
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            manager.close()
        assert sorted({r.id for r in f.results}) == sorted([*ids, "after"])
        assert await committed(f) == 3


async def test_a_dispatcher_without_a_broker_can_be_stopped(broker: Broker, tmp_path: Path) -> None:
    names = Topics("t")
    await ensure_topics(broker.address, [*names.shared(), *names.of_site("local")])
    address = free_address()
    async with fabric(broker.address, "t", tmp_path / "home") as f:
        process = dispatcher_process(f.settings, address)
        manager = HandDriven(f.settings, address)
        try:
            manager.ready()
            await f.invoke("a")
            (task,) = await manager.tasks()
            broker.kill()
            manager.ended(task)
            manager.say(protocol.Heartbeat(0))
            await manager.hear(protocol.Beat)
        finally:
            process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, 20)
        assert code == 0
        await asyncio.to_thread(broker.start)
        assert await broker.wait_ready_async(60)
        before = manager.epoch
        process = dispatcher_process(f.settings, address)
        try:
            manager.ready(held=(Attempt("a", 1),))
            await manager.hear(protocol.Beat, lambda _: manager.epoch > before)  # it serves the new one from then on
            manager.ended(task)
            await manager.beating_until(f.result("a"))
        finally:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0
            manager.close()
