"""A manager of many workers: its start blocks nothing, and a limit that does not suffice is named."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.managing import PATIENCE, PROGRAM
from upon.endpoint import workers as module
from upon.endpoint.channel import FromWorker
from upon.endpoint.descriptors import EACH, make_room
from upon.endpoint.environment import allowed
from upon.endpoint.forker import IN_FLIGHT
from upon.endpoint.workers import Workers


class Heard:
    """What `Workers` reports."""

    def __init__(self) -> None:
        self.up: set[int] = set()
        self.ended: dict[int, int] = {}
        self.given_up: list[int] = []
        self._news = asyncio.Event()

    def forked(self, worker: int, pid: int) -> None: ...

    def heard(self, worker: int, messages: list[FromWorker]) -> None:
        self.up.add(worker)
        self._news.set()

    def exited(self, worker: int, exitcode: int, output: str) -> None:
        self.ended[worker] = exitcode
        self._news.set()

    def stuck(self, worker: int, output: str) -> None:
        self.given_up.append(worker)
        self._news.set()

    def exceeded(self, worker: int, used: int) -> None: ...

    def confused(self, worker: int) -> None: ...

    def failed(self, error: Exception) -> None:
        raise error

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()


async def test_a_parent_that_is_busy_holds_nobody_up() -> None:
    """Its socket holds a few hundred requests; a manager that waits for it there hears nobody meanwhile."""
    heard = Heard()
    workers = Workers(heard, allowed(os.environ), 50)
    try:
        workers.fork(0)
        await heard.until(lambda: 0 in heard.up)
        parent = workers._parent.pid
        os.kill(parent, signal.SIGSTOP)
        before = len(os.listdir("/dev/fd"))
        for worker in range(1, 50):
            workers.fork(worker)
        assert len(os.listdir("/dev/fd")) <= before + IN_FLIGHT * (EACH + 1) + 5, "all are opened at once"
        for _ in range(1000):
            workers.kill(0)
        workers.kill(49)  # it waits for its start
        os.kill(parent, signal.SIGCONT)
        await heard.until(lambda: heard.ended.keys() == {0, 49} and heard.up >= set(range(49)))
    finally:
        workers.close()


async def test_workers_that_wait_for_their_start_are_started_by_the_next_parent() -> None:
    heard = Heard()
    workers = Workers(heard, allowed(os.environ), 40)
    try:
        workers.fork(0)
        await heard.until(lambda: 0 in heard.up)
        os.kill(workers._parent.pid, signal.SIGSTOP)
        for worker in range(1, 41):
            workers.fork(worker)
        os.kill(workers._parent.pid, signal.SIGKILL)
        await heard.until(lambda: heard.ended.keys() | heard.up == set(range(41)))
        assert heard.ended.keys() == set(range(IN_FLIGHT + 1)), "those that the dead one had been asked for"
    finally:
        workers.close()


def test_a_limit_that_does_not_suffice_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "UPON_HOME": str(tmp_path), "UPON_DISPATCHER": "tcp://127.0.0.1:1"}
    command = ["sh", "-c", f'ulimit -n 300 && exec "{sys.executable}" -c "$0"', PROGRAM]
    ended = subprocess.run(
        command,
        env={**environment, "UPON_WORKERS": "400"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 2
    assert "the manager of 400 workers needs 1732 open files and the system allows it 300" in ended.stderr
    assert "set UPON_WORKERS to 42 or less" in ended.stderr


async def test_the_limit_is_raised_for_the_manager_alone() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    workers = None
    try:
        heard = Heard()
        workers = Workers(heard, allowed(os.environ), 30)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == EACH * 30 + IN_FLIGHT + 100
        assert resource.prlimit(workers._parent.pid, resource.RLIMIT_NOFILE)[0] == 200
        assert make_room(10) == 0
    finally:
        if workers is not None:
            workers.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_worker_that_was_killed_and_does_not_end_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here cannot be killed; so the one that has to do it is stopped."""
    monkeypatch.setattr(module, "STUCK", 0.2)
    heard = Heard()
    workers = Workers(heard, allowed(os.environ), 2)
    try:
        for worker in (0, 1):
            workers.fork(worker)
        await heard.until(lambda: heard.up == {0, 1})
        workers.kill(1)
        await heard.until(lambda: 1 in heard.ended)
        os.kill(workers._parent.pid, signal.SIGSTOP)
        workers.kill(0)
        workers.kill(0)
        await heard.until(lambda: heard.given_up)
        os.kill(workers._parent.pid, signal.SIGCONT)
        await heard.until(lambda: 0 in heard.ended)
        assert heard.given_up == [0]
    finally:
        workers.close()


async def test_a_parent_that_dies_takes_no_other_child_of_this_process_along() -> None:
    heard = Heard()
    with subprocess.Popen(["sleep", "1000"]) as other:  # noqa: ASYNC220 (a fork blocks nothing here)
        workers = Workers(heard, allowed(os.environ), 1)
        try:
            workers.fork(0)
            await heard.until(lambda: 0 in heard.up)
            os.kill(workers._parent.pid, signal.SIGKILL)
            await heard.until(lambda: 0 in heard.ended)
            assert other.poll() is None
        finally:
            workers.close()
            other.kill()
