"""kill -9 of the process that workers are forked from: its workers are lost, others take over."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from tests.integration.managing import managed
from tests.integration.test_manager import wait_for


async def test_workers_come_back_under_a_new_parent(tmp_path: Path) -> None:
    async with managed(workers=2) as site:
        gate = str(tmp_path / "gate")
        site.assign(*(site.task(f"t{n}", wait_for, gate) for n in range(4)))
        await site.until(lambda: len(site.begun) == 2)
        lost = set(site.begun)
        workers = site.ready[0].workers
        parent = psutil.Process(workers[0]).ppid()
        os.kill(parent, signal.SIGKILL)
        await site.until(lambda: set(site.deaths) == lost, "Lost")
        await site.until(lambda: not any(map(psutil.pid_exists, workers)), "the end of the old workers")
        Path(gate).touch()
        await site.until(lambda: set(site.outcomes) == {f"t{n}" for n in range(4)} - lost, "the others")
        assert await site.value("after", os.getppid) != parent
