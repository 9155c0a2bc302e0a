"""Dispatcher, manager and workers together, each a real process, over a real Kafka."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatching import Fabric, dispatcher, dispatcher_process, fabric
from tests.integration.test_dispatcher import committed, free_address
from upon.code_hash import code_hash
from upon.config import Settings
from upon.messages import FunctionCode, ItemFailure, Retry
from upon.serialize import dump_function, loads, pack_call, pack_chunk
from upon.topics import Topics

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def manager_process(settings: Settings, address: str, workers: int = 2, grace: str = "30s") -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "UPON_SITE": settings.site,
        "UPON_DISPATCHER": address,
        "UPON_WORKERS": str(workers),
        "UPON_GRACE": grace,
    }
    program = (
        "import sys; from upon.config import Settings; from upon.part import run_part; "
        "from upon.endpoint.manager import main; "
        "sys.exit(run_part('manager', Settings.load(sys.argv[1]), main, needs_kafka=False))"
    )
    return subprocess.Popen([sys.executable, "-c", program, str(settings.home)], env=environment)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


async def registered(f: Fabric, function: Callable[..., Any]) -> str:
    body = dump_function(function)
    code = FunctionCode(hash=code_hash(body), body=body, python=PYTHON)
    await f.code(code)
    return code.hash


async def test_calls_chunks_failures_and_timeouts(kafka: str, topics: Topics, tmp_path: Path) -> None:
    async with fabric(kafka, topics.prefix, tmp_path) as f, dispatcher(f.settings) as address:
        manager = manager_process(f.settings, address)
        try:
            power = await registered(f, lambda x, y: x**y)
            await f.invoke("call", code=power, payload=pack_call([2, 10], {}))
            result = await f.result("call")
            assert loads(result.payload) == 1024
            assert result.timings.started >= result.timings.dispatched > 0
            invert = await registered(f, lambda x: 1 / x)
            await f.invoke("chunk", code=invert, payload=pack_chunk([[1, 0, 4]]), items=3)
            chunk = await f.result("chunk")
            assert chunk.status == "succeeded"
            assert [(type(b), b.index, b.failure.type) for b in chunk.bad_items] == [
                (ItemFailure, 1, "ZeroDivisionError")
            ]
            await f.invoke("fails", code=invert, payload=pack_call([0], {}), retry=Retry(attempts=2, on=("Exception",)))
            failed = await f.result("fails")
            assert (failed.status, failed.attempts) == ("failed", 2)
            sleep = await registered(f, __import__("time").sleep)
            await f.invoke("slow", code=sleep, payload=pack_call([60], {}), timeout=0.3)
            slow = await f.result("slow")
            assert slow.failure is not None
            assert slow.failure.type == "TaskTimeout"
            await f.invoke("cancelled", code=sleep, payload=pack_call([60], {}))
            await f.until(lambda: "cancelled" in f.started, "started")
            await f.cancel("cancelled")
            assert (await f.result("cancelled")).status == "cancelled"
        finally:
            stop(manager)


async def test_a_task_that_kills_its_workers_fails_with_the_story(kafka: str, topics: Topics, tmp_path: Path) -> None:
    async with fabric(kafka, topics.prefix, tmp_path) as f, dispatcher(f.settings) as address:
        manager = manager_process(f.settings, address)
        try:
            suicide = await registered(f, lambda: os.kill(os.getpid(), signal.SIGKILL))
            await f.invoke("poison", code=suicide, payload=pack_call([], {}))
            result = await f.result("poison")
            assert result.failure is not None
            assert (result.status, result.failure.type, result.attempts) == ("failed", "WorkerLost", 3)
            assert len(result.failure.traceback.splitlines()) == 3
            assert "SIGKILL" in result.failure.traceback
            double = await registered(f, lambda x: 2 * x)
            await f.invoke("next", code=double, payload=pack_call([4], {}))
            assert loads((await f.result("next")).payload) == 8
        finally:
            stop(manager)


async def test_dispatcher_and_manager_killed_under_200_tasks(kafka: str, topics: Topics, tmp_path: Path) -> None:
    address, marks = free_address(), tmp_path / "marks"
    marks.mkdir()

    def mark(folder: str, name: str) -> str:
        import pathlib
        import time

        time.sleep(0.01)
        with (pathlib.Path(folder) / name).open("a") as file:
            file.write("x")
        return name

    async with fabric(kafka, topics.prefix, tmp_path / "home") as f:
        code = await registered(f, mark)
        processes = [dispatcher_process(f.settings, address), manager_process(f.settings, address)]
        try:
            for n in range(200):
                await f.invoke(f"t{n}", code=code, payload=pack_call([str(marks), f"t{n}"], {}))
                if n == 60:
                    await f.until(lambda: len(f.results) > 10, "results of the first dispatcher")
                    processes[0].kill()
                    processes[0].wait()
                    processes[0] = dispatcher_process(f.settings, address)
                if n == 120:
                    await f.until(lambda: len(f.results) > 60, "results after the dispatcher's restart")
                    processes[1].kill()
                    processes[1].wait()
                    processes[1] = manager_process(f.settings, address)
            await f.until(lambda: len({r.id for r in f.results}) == 200, "all results")
        finally:
            for process in reversed(processes):
                await asyncio.to_thread(stop, process)
        assert len(f.results) == 200
        assert all(r.status == "succeeded" and loads(r.payload) == r.id for r in f.results)
        assert sorted(file.name for file in marks.iterdir()) == sorted(f"t{n}" for n in range(200))
        twice = [file.name for file in marks.iterdir() if file.read_text() != "x"]
        assert len(twice) <= 6, f"only what the killed manager was about to answer may have run twice: {twice}"
        assert await committed(f) == 200


@pytest.mark.parametrize("grace", ["60s", "200ms"])
async def test_a_manager_that_is_told_to_stop(kafka: str, topics: Topics, tmp_path: Path, grace: str) -> None:
    """What runs goes on to its end, or to the deadline, and what waits goes elsewhere; no attempt is used up."""
    address, marks = free_address(), tmp_path / "marks"
    marks.mkdir()
    quick = [f"quick-{n}" for n in range(5)]

    def once_told(folder: str, name: str) -> str:
        """Say that it has begun; end when it is told so. What is not called `slow` ends at once."""
        import pathlib
        import time

        with (pathlib.Path(folder) / name).open("a") as file:
            file.write("x")
        while name == "slow" and not (pathlib.Path(folder) / "go").exists():
            time.sleep(0.01)
        return name

    async with fabric(kafka, topics.prefix, tmp_path / "home") as f:
        code = await registered(f, once_told)
        processes = [dispatcher_process(f.settings, address), manager_process(f.settings, address, 1, grace)]
        try:
            for name in ("slow", *quick):
                await f.invoke(name, code=code, payload=pack_call([str(marks), name], {}))
            await f.until(lambda: "slow" in f.started, "the slow task's start")
            processes[1].send_signal(signal.SIGTERM)
            processes.append(manager_process(f.settings, address, 1))
            if grace != "60s":  # it is killed at the deadline, and keeps its place in front of the others
                await f.until(lambda: len([id for id in f.started if id == "slow"]) == 2, "its second start")
                (marks / "go").touch()
            for name in quick:
                assert (await f.result(name)).status == "succeeded"
            if grace == "60s":
                assert processes[1].poll() is None, "it goes on"
                (marks / "go").touch()
            slow = await f.result("slow")
            assert (slow.status, slow.attempts) == ("succeeded", 1)
            assert await asyncio.to_thread(processes[1].wait, 30) == 0
        finally:
            for process in reversed(processes):
                if process.poll() is None:
                    await asyncio.to_thread(stop, process)
        assert [(marks / name).read_text() for name in quick] == ["x"] * len(quick)
        assert (marks / "slow").read_text() == ("x" if grace == "60s" else "xx")
        assert len(f.results) == 1 + len(quick)


async def test_a_traceback_shows_lines_of_a_file_that_is_nowhere(kafka: str, topics: Topics, tmp_path: Path) -> None:
    file = tmp_path / "measure.py"
    text = "def mean(values):\n    return sum(values) / len(values)  # the line\n\ndef fail(some): return mean(some)\n"
    file.write_text(text)
    variables: dict[str, Any] = {"__name__": "measure"}
    exec(compile(text, str(file), "exec"), variables)
    async with fabric(kafka, topics.prefix, tmp_path) as f, dispatcher(f.settings) as address:
        mean = await registered(f, variables["fail"])
        file.unlink()
        manager = manager_process(f.settings, address, 1)
        try:
            await f.invoke("fails", code=mean, payload=pack_call([[]], {}))
            failed = await f.result("fails")
            assert failed.failure is not None
            assert f'File "{file}", line 2, in mean\n    return sum(values) / len(values)  # the line' in (
                failed.failure.traceback
            )
            assert "def fail(some): return mean(some)" in failed.failure.traceback
        finally:
            stop(manager)
