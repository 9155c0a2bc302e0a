"""The output of tasks that run, as the service gives it: on real Kafka, with the records that a dispatcher writes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.services import Running, eventually, invocation, result
from upon import api
from upon.messages import InvocationBatch, Started
from upon.printed import OutputBatch, OutputPiece

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def runs(running: Running, *ids: str) -> None:
    await running.records.invocations(InvocationBatch(site="local", invocations=tuple(map(invocation, ids))))
    await running.records.results(started=[Started(id=id, started=1) for id in ids])
    for id in ids:
        await running.task_with(id, "running")


async def prints(running: Running, id: str, start: int, text: str, attempt: int = 1) -> None:
    piece = OutputPiece(id=id, attempt=attempt, start=start, end=start + len(text), text=text)
    await running.records.write(running.topics.output, OutputBatch(site="local", pieces=(piece,)), key=b"local")


async def output(running: Running, id: str, **query: int) -> api.TaskOutput:
    where = f"/v1/tasks/{id}/output"
    return msgspec.convert(await running.ask("GET", where, params=query), api.TaskOutput)


async def test_it_is_followed_to_the_end(running: Running) -> None:
    await runs(running, "f")
    assert await output(running, "f") == api.TaskOutput(id="f", status="running", attempt=0, start=0, end=0, text="")
    waiting = asyncio.create_task(output(running, "f", wait=20))
    await prints(running, "f", 0, "one\n")
    assert await waiting == api.TaskOutput(id="f", status="running", attempt=1, start=0, end=4, text="one\n")
    assert (await running.task("f")).stdout == "one\n"
    waiting = asyncio.create_task(output(running, "f", attempt=1, since=4, wait=20))
    await running.records.results(result("f", stdout="one\ntwo\n"))
    assert await waiting == api.TaskOutput(id="f", status="succeeded", attempt=1, start=4, end=8, text="two\n")
    assert (await output(running, "f")).text == "one\ntwo\n"
    assert (await running.task("f")).stdout == "one\ntwo\n"


async def test_another_attempt_begins_anew(running: Running) -> None:
    await runs(running, "again")
    await prints(running, "again", 0, "first\n")
    waited = await output(running, "again", wait=20)
    await prints(running, "again", 0, "second\n", attempt=2)
    found = await output(running, "again", attempt=1, since=waited.end, wait=20)
    assert (found.attempt, found.start, found.text) == (2, 0, "second\n")
    await prints(running, "again", 6, "late\n", attempt=1)
    await prints(running, "again", 7, "third\n", attempt=2)
    assert (await output(running, "again", attempt=2, since=7, wait=20)).text == "third\n"


async def test_a_record_that_is_none_is_passed_over(running: Running) -> None:
    await runs(running, "after")
    await running.records.write(running.topics.output, b"\xc1 no record")
    await prints(running, "after", 0, "there\n")
    assert (await output(running, "after", wait=20)).text == "there\n"


async def test_a_service_that_is_started_anew_knows_what_was_printed(alone: Running) -> None:
    await runs(alone, "a")
    await prints(alone, "a", 0, "before\n")
    assert (await output(alone, "a", wait=20)).text == "before\n"
    await alone.kill()
    await alone.start()

    async def known() -> Any:
        return (await output(alone, "a")).text == "before\n"

    await eventually(known, "the output is read again")


async def test_what_is_wrong_is_said(running: Running) -> None:
    assert "since: a number" in (await running.refused("GET", "/v1/tasks/f/output?since=-1", status=400)).message
    assert (await running.refused("GET", "/v1/tasks/nobody/output", status=404)).error == "TaskNotFound"
