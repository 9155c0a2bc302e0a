"""What is tried again by hand: dead letters and tasks, through the service and a real Kafka."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiokafka import TopicPartition

from tests.services import Records, Running, eventually, invocation, result, service
from upon import api
from upon.deadletters import ONLY_RULE, Received, letter, without_record
from upon.events import Event, write_record
from upon.ids import new_id
from upon.kafka.admin import ensure_topics
from upon.kafka.clients import async_consumer, async_producer
from upon.messages import Cancel, Cause, DeadLetter, Failure, InvocationBatch
from upon.topics import Topics

NOW = time.time_ns()
RULES = """
version: 1
rules:
  - name: r
    upon: {type: [t]}
    run: {function: demo.double}
"""


@pytest.fixture(scope="module")
def records(kafka: str, module_topics: Topics) -> Records:
    return Records(kafka, module_topics)


@pytest.fixture(scope="module")
def module_topics(kafka: str) -> Topics:
    return Topics(f"retries-{new_id()[:8]}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(kafka: str, module_topics: Topics, records: Records) -> AsyncIterator[Running]:
    await ensure_topics(kafka, [*module_topics.shared(1), *module_topics.of_site("local", 1)])
    await records.announce()
    async with service(kafka, module_topics) as one:
        await one.wait_site()
        yield one


def refused_event(id: str, rule: str = "r", reason: str = "rule r: args: the event has no nope") -> DeadLetter:
    value, headers = write_record([Event(type="t", source="/s", id=id, subject="S")])
    record = Received("t.events", 0, int(id), b"S", value, tuple(headers))
    return letter(
        record, "streams", reason, NOW + int(id), rule=rule, action="run", event_id=id, function="demo.double"
    )


async def letters(running: Running, query: str = "") -> list[api.DeadLetterView]:
    return msgspec.convert(await running.ask("GET", f"/v1/deadletters?{query}"), list[api.DeadLetterView])


async def deal(running: Running, path: str, choice: Any) -> api.Dealt:
    return msgspec.convert(await running.ask("POST", path, choice, status=202), api.Dealt)


@pytest.mark.asyncio(loop_scope="module")
class TestDeadLetters:
    async def test_they_are_found_by_what_they_are_about(self, running: Running, records: Records) -> None:
        some = [refused_event("1"), refused_event("2", "other"), refused_event("3", reason="rule r: site is away")]
        await records.write(records.topics.deadletter, *some, some[0])
        listed = await letters(running)
        assert [one.event_id for one in listed] == ["3", "2", "1"]
        assert (listed[0].value, listed[0].headers, listed[0].rule, listed[0].function) == ("", {}, "r", "demo.double")
        assert [one.event_id for one in await letters(running, "rule=other")] == ["2"]
        assert [one.event_id for one in await letters(running, "reason=is+away")] == ["3"]
        assert [one.event_id for one in await letters(running, f"after={listed[0].id}&limit=1")] == ["2"]
        assert await letters(running, "since=2099-01-01T00:00:00Z") == []
        shown = msgspec.convert(await running.ask("GET", f"/v1/deadletters/{some[0].id[:8]}"), api.DeadLetterView)
        assert '"subject":"S"' in shown.value
        assert shown.headers == {"content-type": "application/cloudevents+json"}
        missing = await running.refused("GET", "/v1/deadletters/nothing", status=404)
        assert missing.error == "DeadLetterNotFound"

    async def test_one_is_tried_again_for_its_rule_alone(self, running: Running, records: Records) -> None:
        await running.register()
        one = refused_event("11")
        await records.write(records.topics.deadletter, one)
        await eventually(lambda: _open(running, one.id), "the letter is there")
        refused = await deal(running, "/v1/deadletters/retry", api.LetterChoice(ids=[one.id, "nothing"]))
        assert refused.ids == []
        assert {said.reason for said in refused.refused} == {
            "no open dead letter has this id",
            "rule r is not in force: apply it first (`upon rules apply FILE`)",
        }
        await running.ask("POST", "/v1/rules", api.NewRules(yaml=RULES))
        assert (await deal(running, "/v1/deadletters/retry", api.LetterChoice(ids=[one.id]))).ids == [one.id]
        async with async_consumer(records.kafka, "test", [records.topics.events]) as consumer:
            await consumer.seek_to_beginning()
            again = await consumer.getone()
        assert (again.key, again.value) == (one.key, one.value)
        assert (ONLY_RULE, b"r") in again.headers
        (resolved,) = [found for found in await letters(running, "status=retried") if found.id == one.id]
        assert (resolved.resolved_by, resolved.resolved is not None) == ("local", True)
        twice = await deal(running, "/v1/deadletters/retry", api.LetterChoice(ids=[one.id]))
        assert (twice.ids, len(twice.refused)) == ([], 1)

    async def test_one_without_its_event_is_tried_again_from_where_that_stands(
        self, running: Running, records: Records
    ) -> None:
        await running.register()
        await running.ask("POST", "/v1/rules", api.NewRules(yaml=RULES))
        value, headers = write_record([Event(type="t", source="/s", id="large", data={"x": "y" * 1000})])
        async with async_producer(records.kafka, "test") as producer:
            at = await producer.send_and_wait(records.topics.events, value, key=b"L", headers=list(headers))
        record = Received(at.topic, at.partition, at.offset, b"L", value, tuple(headers))
        here = without_record(letter(record, "streams", "no", NOW, rule="r", event_id="large"))
        gone = without_record(letter(replace(record, offset=10_000), "streams", "no", NOW, rule="r", event_id="large"))
        await records.write(records.topics.deadletter, here, gone)
        await eventually(lambda: _open(running, gone.id), "the letters are there")
        dealt = await deal(running, "/v1/deadletters/retry", api.LetterChoice(ids=[here.id, gone.id]))
        assert dealt.ids == [here.id]
        assert "have its source publish the event again" in dealt.refused[0].reason
        async with async_consumer(records.kafka, "test", [records.topics.events]) as consumer:
            consumer.seek(TopicPartition(at.topic, at.partition), at.offset + 1)
            again = await consumer.getone()
        assert (again.key, again.value) == (b"L", value)
        assert (ONLY_RULE, b"r") in again.headers

    async def test_written_again_it_stays_dropped(self, running: Running, records: Records) -> None:
        some = [refused_event(str(n), "dropped") for n in range(20, 24)]
        await records.write(records.topics.deadletter, *some)
        await eventually(lambda: _open(running, some[-1].id), "the letters are there")
        before = (await running.ask("GET", "/v1/summary"))["deadletters"]
        dealt = await deal(running, "/v1/deadletters/drop", api.LetterChoice(rule="dropped"))
        assert sorted(dealt.ids) == sorted(one.id for one in some)
        await records.write(records.topics.deadletter, *some)
        assert await letters(running, "rule=dropped") == []
        assert len(await letters(running, "rule=dropped&status=dropped")) == 4
        assert (await running.ask("GET", "/v1/summary"))["deadletters"] == before - 4

    async def test_what_is_no_event_says_what_can_be_done(self, running: Running, records: Records) -> None:
        place = Received("x", 0, 7, None, b"\xff")
        some = {part: letter(place, part, "no", NOW, about="said") for part in ("streams", "dispatcher", "service")} | {
            "cut": letter(place, "sources", "no", NOW, room=0)
        }
        await records.write(records.topics.deadletter, *some.values())
        await eventually(lambda: _open(running, some["cut"].id), "the letters are there")
        ids = [one.id for one in some.values()]
        dealt = await deal(running, "/v1/deadletters/retry", api.LetterChoice(ids=ids))
        said = {one.id: one.reason for one in dealt.refused}
        assert dealt.ids == []
        assert "correct what published it" in said[some["streams"].id]
        assert "whoever submitted it must do that" in said[some["dispatcher"].id]
        assert "its task stays as it is" in said[some["service"].id]
        assert "only 0 of 1 bytes are kept here" in said[some["cut"].id]

    async def test_nothing_chosen_is_refused(self, running: Running) -> None:
        await running.refused("POST", "/v1/deadletters/drop", api.LetterChoice(), status=400)
        await running.refused("POST", "/v1/deadletters/drop", api.LetterChoice(ids=["x"], rule="r"), status=400)
        await running.refused("POST", "/v1/tasks/retry", api.TaskChoice(), status=400)


@pytest.mark.asyncio(loop_scope="module")
class TestTasks:
    async def test_a_task_is_done_again_and_its_history_kept(self, running: Running, records: Records) -> None:
        code = (await running.register("demo.tasks", b"tasks")).code
        cause = Cause(rule="r", rule_revision=1, event_id="e", event_type="a", event_source="/x", event_subject="S/1")
        some = tuple(invocation(f"task-{n}", code, cause=cause) for n in range(3))
        await records.invocations(InvocationBatch(site="local", group="g", invocations=some))
        failure = Failure(type="ValueError", message="first", traceback="…")
        await records.results(result("task-1", status="failed", failure=failure, payload=b""), result("task-2"))
        await running.task_with("task-1", "failed")
        dealt = await deal(running, "/v1/tasks/retry", api.TaskChoice(ids=["task-0", "task-1", "task-2", "none"]))
        assert dealt.ids == ["task-1"]
        said = {one.id: one.reason for one in dealt.refused}
        assert "it is pending" in said["task-0"]
        assert "it has succeeded" in said["task-2"]
        assert "no task has this id" in said["none"]
        (_, again) = await records.read(records.topics.invocations("local"), InvocationBatch, 2)
        assert (again.group, [one.id for one in again.invocations]) == ("g", ["task-1#1"])
        assert msgspec.structs.replace(again.invocations[0], id="task-1") == some[1]
        pending = await running.task_with("task-1", "pending")
        assert (pending.generation, pending.error) == (1, None)
        assert [(one.generation, one.status, one.error and one.error.message) for one in pending.history] == [
            (0, "failed", "first")
        ]
        await records.results(result("task-1", status="failed", failure=failure))  # the first one's, again
        await records.results(result("task-1#1", 5))
        done = await running.task_with("task-1", "succeeded")
        assert (done.result, done.generation, len(done.history)) == (5, 1, 1)
        found = await running.ask("GET", "/v1/tasks?subject=S/1&group=g&details=true")
        assert {one["id"]: one["result"] for one in found} == {"task-0": None, "task-1": 5, "task-2": 1024}

    async def test_tasks_are_cancelled_by_what_they_are(self, running: Running, records: Records) -> None:
        some = tuple(invocation(f"cancel-{n}", function="demo.cancel") for n in range(3))
        await records.invocations(InvocationBatch(site="local", invocations=some))
        await records.results(result("cancel-2", function="demo.cancel"))
        await running.task_with("cancel-2", "succeeded")
        dealt = await deal(running, "/v1/tasks/cancel", api.TaskChoice(function="demo.cancel"))
        assert sorted(dealt.ids) == ["cancel-0", "cancel-1"]
        (asked,) = await records.read(records.topics.control("local"), Cancel, 1)
        assert sorted(asked.ids) == ["cancel-0", "cancel-1"]

    async def test_pages_follow_each_other(self, running: Running, records: Records) -> None:
        some = tuple(invocation(f"page-{n:02}", function="demo.page") for n in range(25))
        await records.invocations(InvocationBatch(site="local", submitted=NOW, invocations=some))
        seen: list[str] = []
        after = ""
        while True:
            page = await running.ask("GET", f"/v1/tasks?function=demo.page&limit=10{after}")
            seen += [one["id"] for one in page]
            if len(page) < 10:
                break
            after = f"&after={page[-1]['id']}"
        assert seen == [f"page-{n:02}" for n in reversed(range(25))]
        await running.refused("GET", "/v1/tasks?after=nothing", status=400)

    async def test_a_sign_of_a_retry_is_no_id_of_a_users_own(self, running: Running) -> None:
        new = api.NewInvocation(function="demo.tasks", id="mine#1")
        said = await running.refused("POST", "/v1/invocations", new, status=400)
        assert "upon tasks retry" in said.message


async def _open(running: Running, id: str) -> bool:
    return any(one.id == id for one in await letters(running, "limit=1000"))
