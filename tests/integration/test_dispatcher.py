"""The dispatcher between a real Kafka and managers that a test drives by hand over real CurveZMQ sockets."""

from __future__ import annotations

import asyncio
import socket
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.dispatching import Fabric, HandDriven, dispatcher, dispatcher_process, fabric
from upon.dispatcher import protocol, wire
from upon.dispatcher.keys import curve_folder, dispatcher_keys, manager_keys
from upon.dispatcher.protocol import Attempt
from upon.embedded.ports import free_port
from upon.errors import AddressTaken, ConfigError
from upon.kafka.clients import async_consumer
from upon.kafka.follow import follow
from upon.messages import DeadLetter, Retry, decode
from upon.topics import Topics


@pytest.fixture
async def f(kafka: str, topics: Topics, tmp_path: Path) -> AsyncIterator[Fabric]:
    async with fabric(kafka, topics.prefix, tmp_path) as made:
        yield made


async def committed(f: Fabric) -> int:
    """Return how many records of the invocations topic are committed."""
    from aiokafka import TopicPartition

    group = f"{f.settings.prefix}.dispatcher.local"
    async with async_consumer(f.settings.kafka, "test-offsets", group=group) as consumer:
        topic = f.settings.topics.invocations("local")
        return sum([await consumer.committed(TopicPartition(topic, number)) or 0 for number in range(4)])


def free_address() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


async def test_the_way_of_one_task(f: Fabric) -> None:
    async with dispatcher(f.settings) as address:
        manager = HandDriven(f.settings, address)
        manager.ready()
        assert (await manager.hear(protocol.Beat, lambda beat: beat.known)).known
        await f.invoke("a", payload=b"arguments", timeout=5.0)
        assert (await manager.hear(protocol.Code)).code.body == b"body"
        (task,) = await manager.tasks()
        assert (task.id, task.attempt, task.payload, task.timeout) == ("a", 1, b"arguments", 5.0)
        manager.say(protocol.Started((protocol.Begun("a", 1, time.time_ns(), 7),)))
        manager.ended(task, pid=7, preview="1", stdout="hello")
        result = await f.result("a")
        assert (result.status, result.payload, result.worker, result.group) == ("succeeded", b"m\x01", "m1/7", "g")
        assert (result.preview, result.stdout, f.started) == ("1", "hello", ["a"])
        t = result.timings
        assert 0 < t.received <= t.dispatched <= t.started <= t.finished <= t.returned
        assert (await manager.hear(protocol.Stored)).attempts == (Attempt("a", 1),)
        await f.until(lambda: any(s.managers and s.managers[0].id == "m1" for s in f.statuses), "the manager announced")
        manager.close()
    assert await committed(f) == 1
    await f.until(lambda: f.statuses[-1].state == "down", "the site announced as down")


async def test_many_tasks_of_many_groups_are_each_stored_once(f: Fabric) -> None:
    ids = [f"t{number}" for number in range(600)]
    for begin in range(0, 600, 50):
        await f.invoke(*ids[begin : begin + 50], group=f"g{begin % 3}")
    async with dispatcher(f.settings) as address:
        manager = HandDriven(f.settings, address, slots=10)
        manager.ready()
        left = len(ids)
        while left:
            tasks = (await manager.hear(protocol.Tasks)).assignments
            left -= len(tasks)
            outcomes = tuple(protocol.Outcome(t.id, t.attempt, "succeeded", b"m\x01") for t in tasks)
            manager.say(protocol.Results(outcomes))
        await f.until(lambda: len(f.results) >= len(ids), "all results")
        manager.close()
    assert sorted(r.id for r in f.results) == sorted(ids)
    assert await committed(f) == 12


async def test_a_cancel_reaches_a_running_task_and_one_that_comes_later(f: Fabric) -> None:
    await f.cancel("later")  # sent while the dispatcher was down
    async with dispatcher(f.settings) as address:
        manager = HandDriven(f.settings, address)
        manager.ready()
        await f.invoke("later", "now")
        (task,) = await manager.tasks()
        assert task.id == "now"
        assert (await f.result("later")).status == "cancelled"
        await f.cancel("now")
        assert (await manager.hear(protocol.Cancel)).attempts == (Attempt("now", 1),)
        manager.ended(task, status="cancelled", payload=b"")
        assert (await f.result("now")).status == "cancelled"
        manager.close()


async def test_what_is_no_invocation_is_a_dead_letter_and_the_next_one_runs(f: Fabric) -> None:
    letters: list[DeadLetter] = []
    came = asyncio.Event()

    def take(record: object) -> None:
        letters.append(decode(record.value, DeadLetter))  # type: ignore[attr-defined]
        came.set()

    topics = f.settings.topics
    following = asyncio.create_task(follow(f.settings.kafka, "test", [topics.deadletter], take))
    async with dispatcher(f.settings) as address:
        await f.put(topics.invocations("local"), b"\xc1 nonsense", b"c0")
        await f.invoke("a")
        manager = HandDriven(f.settings, address)
        manager.ready()
        manager.ended((await manager.tasks())[0])
        await f.result("a")
        await asyncio.wait_for(came.wait(), 30)
        manager.close()
    following.cancel()
    assert await committed(f) == 2
    assert letters[0].value == b"\xc1 nonsense"
    assert letters[0].part == "dispatcher"
    assert letters[0].reason.startswith("InputError: not a valid InvocationBatch")
    assert letters[0].origin.startswith(topics.invocations("local") + "/")


async def test_a_broken_connection_is_known_at_once(f: Fabric) -> None:
    async with dispatcher(f.settings) as address:
        first = HandDriven(f.settings, address, "m1", slots=1)
        first.ready()
        await f.invoke("a")
        (task,) = await first.tasks()
        assert task.attempt == 1
        second = HandDriven(f.settings, address, "m2", slots=1)
        second.ready()
        await second.hear(protocol.Beat)
        first.close()
        (task,) = await second.tasks()
        assert (task.id, task.attempt) == ("a", 2)
        second.ended(task)
        assert (await f.result("a")).worker == "m2"
        second.close()


async def test_a_manager_that_reconnects_keeps_what_it_holds(f: Fabric) -> None:
    async with dispatcher(f.settings) as address:
        manager = HandDriven(f.settings, address, "m1")
        manager.ready()
        await f.invoke("a")
        (task,) = await manager.tasks()
        manager.socket.disconnect(address)
        await f.until(lambda: bool(f.statuses) and not f.statuses[-1].managers and f.statuses[-1].queued == 1, "lost")
        manager.socket.connect(address)
        manager.say(protocol.Heartbeat(1))
        await manager.hear(protocol.Beat, lambda beat: not beat.known)
        manager.ready(held=(Attempt("a", 1),))
        await manager.hear(protocol.Beat, lambda beat: beat.known)
        manager.ended(task)
        assert (await f.result("a")).status == "succeeded"
        manager.close()


async def test_a_stranger_is_not_let_in(f: Fabric, tmp_path: Path) -> None:
    curve = curve_folder(f.settings.places.endpoint("local"))
    async with dispatcher(f.settings) as address:
        stranger = HandDriven(f.settings, address, "m1", key="stranger")
        (curve / "managers" / "stranger.key").unlink()
        friend = HandDriven(f.settings, address, "m2")
        stranger.ready()
        friend.ready()
        await f.invoke("a")
        friend.ended((await friend.tasks())[0])
        await f.result("a")
        assert all(m.id == "m2" for s in f.statuses for m in s.managers)
        stranger.close()
        friend.close()


async def test_a_manager_whose_key_is_removed_is_given_up_while_it_is_connected(f: Fabric) -> None:
    curve = curve_folder(f.settings.places.endpoint("local"))
    manager_keys(curve, "beamline")
    async with dispatcher(f.settings) as address:
        first = HandDriven(f.settings, address, "m1", slots=1, key="beamline")
        first.ready()
        await f.invoke("a")
        await first.tasks()
        (curve / "managers" / "beamline.key").unlink()
        assert "its key was removed" in (await first.hear(protocol.Reject)).reason
        second = HandDriven(f.settings, address, "m2")
        second.ready()
        (task,) = await second.tasks()
        assert (task.id, task.attempt) == ("a", 2)
        first.ended(task, b"m\x02")
        second.ended(task)
        assert (await f.result("a")).worker == "m2"
        first.close()
        second.close()


async def test_another_protocol_version_is_rejected_with_the_reason(f: Fabric) -> None:
    async with dispatcher(f.settings) as address:
        manager = HandDriven(f.settings, address)
        header, body = wire.pack(protocol.Heartbeat(0))
        manager.socket.send_multipart([b"m1", bytes((9, *header[1:])), body])
        assert "protocol version 9" in (await manager.hear(protocol.Reject)).reason
        manager.close()


async def test_a_restarted_dispatcher_knows_what_is_done(f: Fabric) -> None:
    async with dispatcher(f.settings) as address:
        manager = HandDriven(f.settings, address)
        manager.ready()
        await f.invoke("a")
        manager.ended((await manager.tasks())[0])
        await f.result("a")
        manager.close()
    async with dispatcher(f.settings) as address:
        manager = HandDriven(f.settings, address)
        manager.ready()
        await f.invoke("a")
        await f.invoke("b")
        tasks = await manager.tasks()
        assert [t.id for t in tasks] == ["b"]
        manager.ended(tasks[0])
        await f.result("b")
        manager.close()
    assert [r.id for r in f.results] == ["a", "b"]
    assert await committed(f) == 3


async def test_a_killed_dispatcher_is_followed_by_one_that_runs_nothing_twice(f: Fabric) -> None:
    address = free_address()
    await f.invoke("done-before")
    process = dispatcher_process(f.settings, address)
    try:
        manager = HandDriven(f.settings, address, slots=4)
        manager.ready()
        manager.ended((await manager.tasks())[0])
        await f.result("done-before")
        await f.invoke("running", "unsent")
        running, unsent = await manager.tasks(2)
    finally:
        process.kill()
        process.wait()
    process = dispatcher_process(f.settings, address)
    try:
        manager.say(protocol.Heartbeat(1))
        await manager.hear(protocol.Beat, lambda beat: not beat.known)
        manager.ready(held=(Attempt(running.id, 1), Attempt(unsent.id, 1)))
        manager.ended(unsent, b"m\x02")  # it had ended meanwhile, and was not Stored
        await f.invoke("new")
        (task,) = await manager.tasks()
        assert task.id == "new"
        manager.ended(running, b"m\x03")
        manager.ended(task)
        for id in ("running", "unsent", "new"):
            await f.result(id)
        assert (await f.result("unsent")).payload == b"m\x02"
    finally:
        process.terminate()
        assert process.wait(30) == 0
        manager.close()
    assert sorted(r.id for r in f.results) == ["done-before", "new", "running", "unsent"]
    assert await committed(f) == 3


async def test_what_is_settled_behind_a_slow_task_is_in_the_commit(f: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    """One task goes on while all behind it are done: a successor that knows no result runs none of them again."""
    quick = [f"quick-{n}" for n in range(300)]
    async with dispatcher(f.settings) as address:
        manager = HandDriven(f.settings, address, slots=400)
        manager.ready()
        await f.invoke("slow")
        (slow,) = await manager.tasks()
        await manager.beating_until(asyncio.gather(*(f.invoke(id) for id in quick)))
        for task in await manager.tasks(len(quick)):
            manager.ended(task)
        await manager.beating_until(f.until(lambda: len(f.results) == len(quick), "all results"))
    monkeypatch.setattr("upon.dispatcher.process.first_needed", lambda starts, now: now + 60)
    monkeypatch.setattr("upon.dispatcher.dispatcher.horizon", lambda: time.time() + 60)
    async with dispatcher(f.settings) as address:
        later = HandDriven(f.settings, address, id="m2", slots=400)
        later.ready(held=(Attempt("slow", slow.attempt),))
        await f.invoke("new")
        (new,) = await later.tasks()
        assert new.id == "new"
        later.ended(new)
        later.ended(slow)
        await f.until(lambda: len(f.results) == len(quick) + 2, "the last two results")
        later.close()
    manager.close()
    assert await committed(f) == len(quick) + 2


async def test_what_may_start_once_is_in_kafka_before_it_is_given_out(f: Fabric) -> None:
    """The dispatcher and the manager are killed together: nobody knows whether it had begun, so it does not again."""
    address = free_address()
    process = dispatcher_process(f.settings, address)
    manager = HandDriven(f.settings, address)
    try:
        manager.ready()
        await f.invoke("once", retry=Retry(attempts=1))
        await f.invoke("often")
        tasks = await manager.tasks(2)
        assert {task.id for task in tasks} == {"once", "often"}
        await f.until(lambda: "once" in f.started, "the intent")
    finally:
        process.kill()
        process.wait()
        manager.close()
    process = dispatcher_process(f.settings, address)
    later = HandDriven(f.settings, address, id="m2")
    try:
        later.ready()
        (task,) = await later.tasks()
        assert task.id == "often"
        later.ended(task)
        await f.result("often")
        once = await later.beating_until(f.result("once"))
        assert once.failure is not None
        assert once.failure.type == "WorkerLost"
    finally:
        process.terminate()
        assert process.wait(30) == 0
        later.close()


def test_keys_are_private_and_made_once(tmp_path: Path) -> None:
    curve = tmp_path / "curve"
    pair = dispatcher_keys(curve)
    assert dispatcher_keys(curve) == pair
    manager = manager_keys(curve)
    assert manager_keys(curve) == manager
    for file in ("dispatcher.secret", "manager.secret"):
        assert stat.S_IMODE((curve / file).stat().st_mode) == 0o600
    (curve / "dispatcher.secret").write_bytes(b"short\n")
    with pytest.raises(ConfigError, match="remove it, and a new pair is made"):
        dispatcher_keys(curve)


async def test_an_address_that_is_taken_is_a_clear_error(f: Fabric) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        f.settings.dispatcher = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressTaken, match="cannot listen for managers at tcp"):
            async with dispatcher(f.settings):
                pass
