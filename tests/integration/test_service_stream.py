"""The WebSocket: submits, pushed results, attaching again, watchers; over restarts and kill -9 of the service."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import aiohttp
import msgspec
import psutil
import pytest

from tests.services import DEADLINE, Records, Running, Stream, eventually, invocation, result
from upon import api
from upon.code_hash import code_hash
from upon.events import Event
from upon.messages import Cancel, FunctionCode, InvocationBatch, Started

BODY = b"the code of a test"
CODE = code_hash(BODY)


pytestmark = pytest.mark.asyncio(loop_scope="module")


def submit(request: int, *ids: str, group: str = "g", **fields: object) -> api.Submit:
    some = tuple(invocation(id, CODE, **fields) for id in ids)
    return api.Submit(request=request, site="local", group=group, invocations=some)


async def invocations(records: Records, count: int) -> list[InvocationBatch]:
    """Return the records of the site as soon as they hold so many invocations, however these were batched."""
    return await records.read_until(
        records.topics.invocations("local"),
        InvocationBatch,
        lambda found: sum(len(batch.invocations) for batch in found) >= count,
    )


async def register(stream: Stream) -> None:
    done = await stream.ask(api.Register(request=0, code=FunctionCode(hash=CODE, body=BODY, python="3.11")))
    assert done == api.Done(request=0)


class TestRequests:
    async def test_submits_are_pipelined_and_keep_their_order(self, alone: Running) -> None:
        async with alone.stream() as stream:
            await register(stream)
            for n in range(200):
                await stream.send(submit(n + 1, f"t{n}"))
            done = {(await stream.next(api.Done)).request for _ in range(200)}
            assert done == set(range(1, 201))
        batches = await invocations(alone.records, 200)
        assert [one.id for batch in batches for one in batch.invocations] == [f"t{n}" for n in range(200)]
        assert {(batch.group, batch.principal) for batch in batches} == {("g", "local")}
        assert (await alone.task("t199")).status == "pending"

    async def test_large_batches_are_split_and_codes_kept_apart(self, alone: Running) -> None:
        other = code_hash(b"other")
        async with alone.stream() as stream:
            await register(stream)
            await stream.ask(api.Register(request=1, code=FunctionCode(hash=other, body=b"other", python="3.11")))
            some = [invocation(f"t{n}", (CODE, other)[n % 2], payload=b"p" * 300_000) for n in range(10)]
            frame = api.Submit(request=2, site="local", group="g", invocations=tuple(some))
            assert await stream.ask(frame) == api.Done(request=2)
        batches = await invocations(alone.records, 10)
        assert sorted(one.id for batch in batches for one in batch.invocations) == sorted(one.id for one in some)
        assert all(len({one.code for one in batch.invocations}) == 1 for batch in batches)

    async def test_the_largest_arguments_go_through(self, running: Running) -> None:
        from upon.messages import MAX_PAYLOAD

        async with running.stream() as stream:
            await register(stream)
            assert await stream.ask(submit(1, "large", payload=b"x" * MAX_PAYLOAD)) == api.Done(request=1)

    async def test_refusals_name_what_is_wrong_and_the_connection_goes_on(self, alone: Running) -> None:
        async with alone.stream() as stream:

            async def refused(frame: api.FromClient) -> api.Problem:
                answer = await stream.ask(frame)
                assert isinstance(answer, api.Refused), answer
                assert answer.request == frame.request
                return answer.problem

            assert (await refused(submit(1, "a"))).error == "FunctionNotFound"
            await register(stream)
            wrong = FunctionCode(hash=CODE, body=b"other", python="3.11")
            assert (await refused(api.Register(request=2, code=wrong))).error == "FunctionError"
            moon = msgspec.structs.replace(submit(3, "a"), site="moon")
            assert (await refused(moon)).error == "SiteNotFound"
            assert (await refused(submit(4, ""))).error == "InputError"
            assert (await refused(submit(5, "a", timeout=float("nan")))).error == "InputError"
            assert (await refused(submit(6, "a", version=2))).error == "FunctionNotFound"
            assert (
                await refused(submit(7, "a", payload=b"x" * (16 * 1024 * 1024 - 60_000)))
            ).error == "PayloadTooLarge"
            await stream.socket.send_bytes(msgspec.msgpack.encode({"op": "fly", "request": 8}))
            answer = await stream.next(api.Refused)
            assert (answer.request, answer.problem.error) == (8, "InputError")
            assert await stream.ask(submit(9, "a")) == api.Done(request=9)

    async def test_what_is_no_frame_ends_the_connection(self, running: Running) -> None:
        for data in ("hello", b"\xc1"):
            async with running.stream() as stream:
                await (stream.socket.send_str(data) if isinstance(data, str) else stream.socket.send_bytes(data))
                message = await stream.socket.receive(timeout=DEADLINE)
                assert message.type is aiohttp.WSMsgType.CLOSE
                assert message.data in (1003, 1007)

    async def test_cancel(self, running: Running) -> None:
        async with running.stream() as stream:
            ids = tuple(f"t{n}" for n in range(5_001))
            assert await stream.ask(api.CancelTasks(request=1, site="local", ids=ids)) == api.Done(request=1)
        parts = await running.records.read_until(
            running.records.topics.control("local"),
            Cancel,
            lambda found: sum(len(one.ids) for one in found) >= len(ids),
        )
        assert tuple(id for part in parts for id in part.ids) == ids


class TestResults:
    async def test_they_are_pushed_to_their_group_alone(self, running: Running) -> None:
        async with running.stream() as one, running.stream() as two:
            await one.ask(api.Attach(request=1, group="one"))
            await two.ask(api.Attach(request=1, group="two"))
            await running.records.results(
                *[result(f"{g}{n}", n, group=g) for g in ("one", "two", "") for n in range(100)]
            )
            assert set(await one.results(100)) == {f"one{n}" for n in range(100)}
            assert set(await two.results(100)) == {f"two{n}" for n in range(100)}
            assert not one.waiting

    async def test_one_that_is_none_holds_up_no_other(self, running: Running) -> None:
        async with running.stream() as stream:
            await stream.ask(api.Attach(request=1, group="mixed"))
            some = [result(id, 1, group="mixed") for id in ("m1", "m2", "m3")]
            bad = msgspec.structs.replace(some[1], status="unheard of")  # type: ignore[arg-type]
            await running.records.results(some[0], bad, some[2])
            assert set(await stream.results(2)) == {"m1", "m3"}

    async def test_unfinished_tasks_get_what_is_there(self, running: Running) -> None:
        await running.records.results(*[result(f"t{n}", n, group="g") for n in range(1500)])
        async with running.stream() as stream:
            asked = tuple(f"t{n}" for n in range(2000))
            await stream.ask(api.Attach(request=1, group="g", unfinished=asked))
            assert len(await stream.results(1500)) == 1500
            await running.records.results(*[result(f"t{n}", n, group="g") for n in range(1500, 2000)])
            assert set(await stream.results(500)) == {f"t{n}" for n in range(1500, 2000)}

    async def test_a_task_is_shown_with_the_result_that_was_pushed(self, alone: Running) -> None:
        """However late the store is: a client that has a result sees no task that still runs."""
        await alone.records.invocations(InvocationBatch(site="local", invocations=(invocation("t"),)))
        await alone.task_with("t", "pending")
        async with alone.stream() as stream:
            await stream.ask(api.Attach(request=1, group="g"))
            with sqlite3.connect(alone.home / "service" / "tasks.db") as store:
                store.execute("BEGIN IMMEDIATE")  # nobody else writes meanwhile
                await alone.records.results(result("t", group="g"))
                assert set(await stream.results(1)) == {"t"}
                asking = asyncio.create_task(alone.task("t"))
                await asyncio.wait({asking}, timeout=0.3)
                store.rollback()
            store.close()
            assert (await asking).status == "succeeded"

    @pytest.mark.parametrize("end", ["stop", "kill"])
    async def test_none_is_missed_while_the_service_is_away(self, alone: Running, end: str) -> None:
        """Results keep coming while the service is ended and started again three times."""
        total, sent = 600, 0
        missing = {f"t{n}" for n in range(total)}

        async def produce() -> None:
            nonlocal sent
            while sent < total:
                await alone.records.results(*[result(f"t{n}", n, group="g") for n in range(sent, sent + 20)])
                sent += 20

        producing = asyncio.create_task(produce())
        for life in range(4):
            async with alone.stream() as stream:
                await stream.ask(api.Attach(request=1, group="g", unfinished=tuple(sorted(missing))))
                if life < 3:
                    missing -= set(await stream.results(min(len(missing), 20)))
                    await (alone.stop() if end == "stop" else alone.kill())
                    await alone.start()
                else:
                    while missing:
                        missing -= set(await stream.results(1))
        await producing

    async def test_a_client_that_does_not_read_is_disconnected(self, running: Running) -> None:
        async with running.stream() as slow, running.stream() as quick:
            await slow.ask(api.Attach(request=1, group="slow"))
            await quick.ask(api.Attach(request=1, group="quick"))
            slow.socket._reader._protocol.pause_reading()  # type: ignore[attr-defined]
            for n in range(14):
                await running.records.results(result(f"s{n}", b"x" * 8_000_000, group="slow"))
            await running.records.results(result("q", group="quick"))
            assert set(await quick.results(1)) == {"q"}, "a slow client holds up nobody"
            slow.socket._reader._protocol.resume_reading()  # type: ignore[attr-defined]
            with pytest.raises(AssertionError, match="CLOSE"):
                await slow.results(14)
        async with running.stream() as again:
            await again.ask(api.Attach(request=1, group="slow", unfinished=tuple(f"s{n}" for n in range(14))))
            assert len(await again.results(14)) == 14


class TestWatching:
    async def test_events_and_tasks(self, alone: Running) -> None:
        async with alone.stream() as stream:
            await stream.ask(api.Watch(request=1, events=True, tasks=True))
            event = Event(type="a", source="/x", subject="s", data={"n": 1})
            await alone.ask("POST", "/v1/events", event.to_dict(), status=202)
            seen = await stream.next(api.EventSeen)
            assert (seen.event, seen.missed) == (event.to_dict(), 0)
            await alone.records.invocations(InvocationBatch(site="local", invocations=(invocation("t"),)))
            assert (await stream.next(api.TaskChanged)).task.status == "pending"
            await alone.records.results(started=[Started(id="t", started=1)])
            assert (await stream.next(api.TaskChanged)).task.status == "running"
            await alone.records.results(result("t"))
            ended = (await stream.next(api.TaskChanged)).task
            assert ended == await alone.task("t")

    async def test_a_slow_watcher_is_told_how_many_it_missed(self, alone: Running) -> None:
        async with alone.stream() as stream:
            await stream.ask(api.Watch(request=1, events=True))
            stream.socket._reader._protocol.pause_reading()  # type: ignore[attr-defined]
            data = "x" * 5_000
            for _ in range(4):
                some = [Event(type="a", source="/x", data=data).to_dict() for _ in range(2_000)]
                await alone.ask("POST", "/v1/events", some, status=202)
            stream.socket._reader._protocol.resume_reading()  # type: ignore[attr-defined]
            seen = missed = more = 0

            async def told() -> bool:
                """Publish one more, which tells what was missed before it, unless it is missed as well."""
                nonlocal seen, missed, more
                more += 1
                event = Event(type="b", source="/x", subject=str(more)).to_dict()
                await alone.ask("POST", "/v1/events", event, status=202)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        found = None
                        while found is None or found.event.get("subject") != str(more):
                            found = await stream.next(api.EventSeen)
                            seen, missed = seen + 1, missed + found.missed
                return seen + missed == 8_000 + more

            await eventually(told, "all events are seen or counted")
            assert missed > 0


class TestTheStore:
    async def test_kill_9_in_the_middle_of_the_projection(self, alone: Running) -> None:
        total = 20_000
        ids = [f"t{n}" for n in range(total)]

        async def produce() -> None:
            for start in range(0, total, 500):
                some = ids[start : start + 500]
                await alone.records.invocations(
                    InvocationBatch(site="local", submitted=10**18 + start, invocations=tuple(map(invocation, some)))
                )
                await alone.records.results(*[result(id) for id in some])

        producing = asyncio.create_task(produce())

        async def under_way() -> bool:
            return bool(await alone.ask("GET", "/v1/tasks?limit=1"))

        for _ in range(3):
            await eventually(under_way, "some tasks are stored")
            await alone.kill()
            await alone.start()
        await producing

        async def all_there() -> bool:
            return bool((await alone.ask("GET", "/v1/status"))["lag"].get("service", 1) == 0)

        await eventually(all_there, "the projection has caught up")
        with sqlite3.connect(alone.home / "service" / "tasks.db") as database:
            counted = database.execute("SELECT status, accepted, count(*) FROM tasks GROUP BY 1, 2").fetchall()
            positions = database.execute("SELECT sum(next) FROM positions").fetchone()
        assert counted == [("succeeded", 1, total)]
        assert positions == (2 * total // 500,)


class TestAClientThatDoesNotRead:
    async def test_its_answers_wait_for_it_and_take_little_memory(self, alone: Running) -> None:
        """Requests go on being sent while no answer is read: the service stops reading, and answers all in the end."""
        before = psutil.Process(alone.pid).memory_info().rss
        async with alone.stream() as stream:
            connection = stream.socket._response.connection
            assert connection is not None
            assert connection.transport is not None
            connection.transport.pause_reading()  # type: ignore[attr-defined]
            frame = api.encode_frame(api.Submit(request=1, site="\x01" * 200_000, group="g", invocations=()))
            sent = 0

            async def flood() -> None:
                nonlocal sent
                while True:
                    await stream.socket.send_bytes(frame)
                    sent += 1

            flooding = asyncio.create_task(flood())

            async def stands_still() -> bool:
                was = sent
                await asyncio.wait([flooding], timeout=1.0)
                return sent == was

            await eventually(stands_still, "the service reads no more")
            flooding.cancel()
            assert psutil.Process(alone.pid).memory_info().rss - before < 200_000_000
        await alone.ask("GET", "/healthz")
