"""Invocations and tasks: what the service writes, and the store behind what it shows, on real Kafka."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services import Running, eventually, invocation, result
from upon import api
from upon.messages import (
    Cancel,
    Cause,
    Failure,
    InvocationBatch,
    Started,
)
from upon.serialize import unpack_call

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestInvocations:
    async def test_it_is_in_kafka_and_in_the_store_at_once(self, alone: Running) -> None:
        function = await alone.register()
        body = {"function": "demo.double", "args": [[1, 2.0]], "kwargs": {"k": None}, "timeout": 5, "id": "mine"}
        for _ in range(2):
            assert await alone.ask("POST", "/v1/invocations", body, status=202) == {"id": "mine"}
        task = await alone.task("mine")
        assert (task.status, task.function, task.version, task.attempts) == ("pending", "demo.double", 1, 0)
        assert [hop.name for hop in task.timings] == ["submitted"]
        batches = await alone.records.read_until(
            alone.records.topics.invocations("local"),
            InvocationBatch,
            lambda found: sum(len(batch.invocations) for batch in found) >= 2,
        )
        batch, sent = batches[0], batches[0].invocations[0]
        assert [one.id for some in batches for one in some.invocations] == ["mine", "mine"]
        assert unpack_call(sent.payload) == ([[1, 2.0]], {"k": None})
        assert (sent.code, sent.timeout, batch.principal) == (function.code, 5.0, "local")

    async def test_what_is_not_there(self, running: Running) -> None:
        await running.register()
        there = {"function": "demo.double"}
        said = await running.refused("POST", "/v1/invocations", {"function": "nothing"}, status=404)
        assert said.error == "FunctionNotFound"
        said = await running.refused("POST", "/v1/invocations", {**there, "site": "moon"}, status=404)
        assert (said.error, "local" in said.message) == ("SiteNotFound", True)
        await running.refused("POST", "/v1/invocations", {**there, "timeout": -1}, status=400)
        await running.refused("POST", "/v1/invocations", {**there, "id": ""}, status=400)
        assert (await running.refused("GET", "/v1/tasks/none", status=404)).error == "TaskNotFound"


class TestTasks:
    async def test_the_whole_way(self, running: Running) -> None:
        cause = Cause(rule="thumbs", rule_revision=3, event_id="e1", event_type="upon.file.ready", event_source="/lab",
                      event_subject="/a.png", event_time=1_767_225_599_000_000_000,
                      event_recorded=1_767_225_599_500_000_000)  # fmt: skip
        one = invocation("t1", function="thumbs.make", version=2, cause=cause)
        at = 1_767_225_600_000_000_000
        await running.records.invocations(
            InvocationBatch(site="local", principal="r", submitted=at, invocations=(one,))
        )
        task = await running.task("t1")
        assert (task.status, task.rule, task.rule_revision, task.event_id) == ("pending", "thumbs", 3, "e1")
        await running.records.results(started=[Started(id="t1", started=1_767_225_600_003_000_000, worker="m1/8")])
        assert (await running.task_with("t1", "running")).attempts == 1
        done = result("t1", {"mean": 3.5}, function="thumbs.make", version=2, cause=cause, stdout="hello\n")
        await running.records.results(done)
        task = await running.task_with("t1", "succeeded")
        assert task.result == {"mean": 3.5}
        assert task.stdout == "hello\n"
        assert task.event is not None
        assert (task.event.subject, task.event.time) == ("/a.png", "2025-12-31T23:59:59.000000Z")
        assert [hop.name for hop in task.timings] == ["event", "recorded", "submitted", "received", "dispatched",
                                                      "started", "finished", "returned", "stored"]  # fmt: skip
        assert (task.timings[0].after, task.timings[2].after, task.duration) == (0.0, 1000.0, 2.0)

    async def test_results_are_shown_without_running_anything(self, running: Running) -> None:
        plain, python = result("plain", [1, None, b"x"]), result("python", {1, 2}, preview="{1, 2}")
        deep: Any = []
        for _ in range(200):
            deep = [deep]
        damaged = result("damaged", payload=b"m\xc1", preview="?")
        failure = Failure(type="ValueError", message="no", traceback="Traceback…", kinds=("ValueError", "Exception"))
        failed = result("failed", status="failed", failure=failure, payload=b"")
        await running.records.results(plain, python, result("deep", deep), damaged, failed)
        assert (await running.task_with("plain", "succeeded")).result == [1, None, "eA=="]
        assert (await running.task("python")).result == {"python": "{1, 2}"}
        assert (await running.task("damaged")).result == {"python": "?"}
        assert isinstance((await running.task("deep")).result, list)
        task = await running.task("failed")
        assert (task.status, task.result) == ("failed", None)
        assert task.error == api.TaskError(type="ValueError", message="no", traceback="Traceback…")

    async def test_a_result_may_come_first_and_the_first_one_wins(self, running: Running) -> None:
        await running.records.results(result("a", 1))
        await running.task_with("a", "succeeded")
        batch = InvocationBatch(site="local", principal="anna", invocations=(invocation("a"), invocation("b")))
        await running.records.invocations(batch)
        await running.records.results(result("a", 2, status="failed"), started=[Started(id="a", started=1, attempt=2)])
        await running.records.results(result("last", 0))
        await running.task_with("last", "succeeded")
        task = await running.task("a")
        assert (task.status, task.result, task.principal, task.attempts) == ("succeeded", 1, "anna", 1)
        assert (await running.task("b")).status == "pending"

    async def test_listing(self, alone: Running) -> None:
        def batch(n: int) -> InvocationBatch:
            name = f"f{n % 2}"
            return InvocationBatch(
                site="local", submitted=10**18 + n, invocations=(invocation(f"t{n}", function=name),)
            )

        await alone.records.invocations(*[batch(n) for n in range(6)])
        await alone.records.results(result("t5", function="f1"), result("t4", status="failed", function="f0"))
        await alone.task_with("t4", "failed")
        for n in range(4):  # the invocations are in other partitions than the results
            await alone.task_with(f"t{n}", "pending")

        async def ids(query: str) -> list[str]:
            return [one["id"] for one in await alone.ask("GET", f"/v1/tasks{query}")]

        assert await ids("") == ["t5", "t4", "t3", "t2", "t1", "t0"]
        assert await ids("?limit=2") == ["t5", "t4"]
        assert await ids("?status=failed") == ["t4"]
        assert await ids("?status=pending&function=f1") == ["t3", "t1"]
        assert await ids("?function=f1@2") == []
        assert await ids("?site=moon") == []
        assert await ids("?rule=none") == []

    async def test_cancel(self, running: Running) -> None:
        await running.register()
        await running.ask("POST", "/v1/invocations", {"function": "demo.double", "id": "c1"}, status=202)
        await running.ask("POST", "/v1/tasks/c1/cancel", status=202)
        (cancel,) = await running.records.read(running.records.topics.control("local"), Cancel, 1)
        assert cancel.ids == ("c1",)
        await running.records.results(result("c1", status="cancelled"))
        await running.task_with("c1", "cancelled")
        assert (await running.refused("POST", "/v1/tasks/c1/cancel", status=409)).error == "Conflict"
        await running.refused("POST", "/v1/tasks/none/cancel", status=404)

    async def test_bad_records_do_not_stop_it(self, running: Running) -> None:
        topics = running.records.topics
        await running.records.write(topics.results, b"\xc1 no message", b"")
        await running.records.write(topics.invocations("local"), b"neither")
        await running.records.results(result("nul\x00", stdout="a\x00b"), result("huge", attempts=2**63))
        await running.records.results(result("not final", status="running"))
        await running.records.results(result("after"))
        await running.task_with("after", "succeeded")
        assert (await running.task("huge")).attempts == 2**63 - 1

        async def letters() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = await running.ask("GET", "/v1/deadletters")
            return found if len(found) == 3 else []

        found = await eventually(letters, "three dead letters")
        assert {one["part"] for one in found} == {"service"}
        assert all(one["origin"].startswith(topics.results) for one in found)
