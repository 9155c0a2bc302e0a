"""The manager with its real workers, at the end of a real ROUTER with CurveZMQ."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.integration.managing import PATIENCE, managed, start, stop
from upon import serialize
from upon.dispatcher import protocol
from upon.dispatcher.keys import curve_folder, dispatcher_keys
from upon.dispatcher.protocol import Assignment, Attempt
from upon.messages import FunctionCode


def wait_for(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return path


def append(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def speak() -> int:
    print("from Python")
    print("an error", file=sys.stderr)
    os.system("echo from a child")
    return 1


def leave_a_child(folder: str) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    Path(folder, "child").write_text(str(child.pid))
    time.sleep(1000)


def come_back_twice() -> int:
    os.fork()
    return os.getpid()


async def test_values_exceptions_output_and_chunks() -> None:
    async with managed() as site:
        ready = site.ready[0]
        assert (ready.slots, len(ready.workers), ready.held) == (2, 2, ())
        assert await site.value("a", lambda a, b: a + b, 1, 2) == 3
        spoken = await site.run("b", speak)
        assert sorted(spoken.stdout.splitlines()) == ["an error", "from Python", "from a child"]
        assert spoken.pid in ready.workers
        assert 0 < spoken.started <= spoken.finished
        failed = await site.run("c", lambda: 1 / 0)
        assert failed.status == "failed"
        assert failed.failure is not None
        assert (failed.failure.type, failed.stdout) == ("ZeroDivisionError", "")
        columns = serialize.pack_chunk([[1, 0, 2]])
        site.assign(Assignment("d", 1, site.code(lambda n: 2 // n), "f", columns, 3))
        chunk = await site.outcome("d")
        assert serialize.loads(chunk.payload) == [2, None, 1]
        assert [one.index for one in chunk.bad_items] == [1]


async def test_many_tasks_each_once_and_large_payloads() -> None:
    async with managed() as site:
        same: Any = lambda value: value  # noqa: E731
        site.assign(*(site.task(f"t{n}", same, n) for n in range(3000)))
        await site.until(lambda: len(site.outcomes) == 3000)
        assert all(serialize.loads(site.outcomes[f"t{n}"][0].payload) == n for n in range(3000))
        assert all(len(outcomes) == 1 for outcomes in site.outcomes.values())
        assert {outcomes[0].pid for outcomes in site.outcomes.values()} == set(site.ready[0].workers)
        big = os.urandom(5_000_000)
        site.assign(*(site.task(f"big{n}", same, big) for n in range(4)))
        for n in range(4):
            assert serialize.loads((await site.outcome(f"big{n}")).payload) == big


async def test_code_that_was_not_sent_is_asked_for() -> None:
    async with managed() as site:
        assignment = site.task("a", lambda: 1)
        stranger = Assignment("b", 1, "unknown", "f", assignment.payload)
        site.codes["unknown"] = FunctionCode(
            hash="unknown", body=site.codes[assignment.code].body, python=site.codes[assignment.code].python
        )
        site.assign(stranger, stranger)
        assert (await site.outcome("b")).status == "succeeded"
        assert [message for message in site.heard if isinstance(message, protocol.Need)] == [
            protocol.Need(("unknown",))
        ]


async def test_nothing_waits_behind_a_long_task(tmp_path: Path) -> None:
    """Both workers hold tasks ahead; one is stuck in its first, the other takes over all the rest."""
    async with managed() as site:
        gate = str(tmp_path / "gate")
        quick = [site.task(f"q{n}", lambda: 0) for n in range(20)]
        site.assign(site.task("long", wait_for, gate), *quick)
        await site.until(lambda: len(site.outcomes) == 20, "the quick ones")
        assert "long" not in site.outcomes
        await site.until(lambda: "long" in site.begun, "Started")
        Path(gate).touch()
        await site.outcome("long")


async def test_a_task_over_its_timeout_is_killed_with_its_children(tmp_path: Path) -> None:
    async with managed(workers=1) as site:
        site.assign(site.task("a", leave_a_child, str(tmp_path), timeout=1.0), site.task("b", os.getpid))
        outcome = await site.outcome("a")
        assert outcome.failure is not None
        assert outcome.failure.type == "TaskTimeout"
        assert "its timeout is 1 s" in outcome.failure.message
        assert outcome.finished - outcome.started >= 1_000_000_000
        child = int((tmp_path / "child").read_text())
        await site.until(lambda: not psutil.pid_exists(child), "the end of the child")
        pid = serialize.loads((await site.outcome("b")).payload)
        assert pid != outcome.pid
        assert not site.deaths


async def test_cancel_what_runs_what_waits_and_what_is_unknown(tmp_path: Path) -> None:
    async with managed(workers=1) as site:
        never = str(tmp_path / "never")
        site.assign(site.task("runs", wait_for, never), site.task("waits", wait_for, never))
        await site.until(lambda: "runs" in site.begun)
        site.say(protocol.Cancel((Attempt("waits", 1), Attempt("runs", 1), Attempt("unknown", 1))))
        for id in ("waits", "runs", "unknown"):
            outcome = await site.outcome(id)
            assert (outcome.status, outcome.failure and outcome.failure.type) == ("cancelled", "TaskCancelled")
        assert site.outcomes["runs"][0].started > 0
        assert site.outcomes["waits"][0].started == 0
        assert await site.value("after", lambda: 1) == 1


async def test_functions_that_try_to_end_the_worker() -> None:
    async with managed(workers=1) as site:
        for id, function in (("exit", sys.exit), ("interrupt", lambda: os.kill(os.getpid(), signal.SIGINT))):
            outcome = await site.run(id, function)
            assert outcome.failure is not None, id
            assert outcome.failure.type in ("SystemExit", "KeyboardInterrupt")
        assert await site.value("pid", os.getpid) == site.ready[0].workers[0]
        assert await site.value("fork", come_back_twice) == site.ready[0].workers[0]
        assert await site.value("after", lambda: 1) == 1
        assert len(site.outcomes["fork"]) == 1


async def test_stop_with_drain_lets_tasks_end_and_then_goes(tmp_path: Path) -> None:
    async with managed(workers=1) as site:
        gate = str(tmp_path / "gate")
        site.assign(site.task("a", wait_for, gate))
        await site.until(lambda: "a" in site.begun)
        site.say(protocol.Stop(drain=True, reason="maintenance"))
        Path(gate).touch()
        await site.outcome("a")
        site.stored("a")
        await site.until(lambda: isinstance(site.heard[-1], protocol.Bye), "Bye")
        assert site.process is not None
        assert site.process.wait(PATIENCE) == 0


async def test_it_ends_soon_and_says_bye_while_tasks_run(tmp_path: Path) -> None:
    async with managed() as site:
        site.assign(*(site.task(f"t{n}", leave_a_child, str(tmp_path)) for n in range(5)))
        await site.until(lambda: len(site.begun) == 2 and (tmp_path / "child").exists())
        assert site.process is not None
        site.process.terminate()
        assert site.process.wait(PATIENCE) == 0
        await site.until(lambda: isinstance(site.heard[-1], protocol.Bye), "Bye")
        child = int((tmp_path / "child").read_text())
        await site.until(lambda: not psutil.pid_exists(child), "the end of the child")


async def test_a_process_that_left_its_session_ends_with_the_manager() -> None:
    async with managed(workers=1) as site:

        def start_daemon() -> int:
            return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

        daemon = await site.value("a", start_daemon)
        stop(site)
        await site.until(lambda: not psutil.pid_exists(daemon), "its end")


async def test_a_dispatcher_that_rejects_it_is_quoted() -> None:
    async with managed(workers=1) as site:
        site.say(protocol.Reject("version 2 is needed"))
        assert site.process is not None
        assert site.process.wait(PATIENCE) == 2
        assert site.process.stderr is not None
        assert b"will not work with this manager: version 2 is needed" in site.process.stderr.read()


async def test_a_manager_of_another_machine_is_let_in_when_its_key_is_there(tmp_path: Path) -> None:
    async with managed(workers=1) as site:
        stop(site)
        there = curve_folder(tmp_path / "endpoint" / "local")
        there.mkdir(parents=True)
        shutil.copy(site.curve / "dispatcher.key", there)
        start(site, 1, home=tmp_path)
        assert site.process is not None
        assert site.process.stderr is not None
        refused = await asyncio.to_thread(site.process.stderr.readline)
        assert b"refused this manager's key" in refused
        shutil.copy(there / "managers" / "manager.key", site.curve / "managers" / "beamline.key")
        await site.until(lambda: len(site.ready) == 2, "Ready")


async def test_a_manager_with_the_key_of_another_dispatcher_says_so(tmp_path: Path) -> None:
    async with managed(workers=1) as site:
        stop(site)
        dispatcher_keys(curve_folder(tmp_path / "endpoint" / "local"))
        start(site, 1, home=tmp_path)
        assert site.process is not None
        assert site.process.stderr is not None
        assert b"it may have another key" in await asyncio.to_thread(site.process.stderr.readline)
