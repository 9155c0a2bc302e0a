"""kill -9 of a worker, at a manager: what ran there is lost with its story, everything else runs once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.integration.managing import managed
from tests.integration.test_manager import append, wait_for


def write_and_wait(log: str, id: str, gate: str) -> None:
    append(log, id + "\n")
    wait_for(gate)


async def test_only_the_running_task_is_lost(tmp_path: Path) -> None:
    log, gate = str(tmp_path / "log"), str(tmp_path / "gate")
    async with managed(workers=1) as site:
        site.assign(*(site.task(f"t{n}", write_and_wait, log, f"t{n}", gate) for n in range(10)))
        await site.until(lambda: "t0" in site.begun)
        os.kill(site.begun["t0"][0].pid, signal.SIGKILL)
        await site.until(lambda: "t0" in site.deaths, "Lost")
        (death,) = site.deaths["t0"]
        assert (death.exitcode, death.attempt, death.pid) == (-9, 1, site.begun["t0"][0].pid)
        assert "was killed by SIGKILL" in death.story
        assert death.finished > death.started > 0
        Path(gate).touch()
        await site.until(lambda: len(site.outcomes) == 9, "the others")
        assert list(site.deaths) == ["t0"]
        assert sorted(Path(log).read_text().split()) == sorted(f"t{n}" for n in range(10)), "each once"
        retried = await site.run("t0", write_and_wait, log, "again", gate, attempt=2)
        assert (retried.status, retried.attempt) == ("succeeded", 2)


async def test_a_crash_tells_where_it_was() -> None:
    async with managed(workers=1) as site:

        def crash() -> None:
            import ctypes

            ctypes.string_at(0)

        site.assign(site.task("a", crash))
        await site.until(lambda: "a" in site.deaths, "Lost")
        story = site.deaths["a"][0].story
        assert "SIGSEGV" in story
        assert "string_at" in story
        assert await site.value("b", lambda: 1) == 1


async def test_idle_workers_are_replaced_at_once() -> None:
    async with managed(workers=2) as site:
        before = set(site.ready[0].workers)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await site.until(
            lambda: any(len(w := getattr(m, "workers", ())) == 2 and not before & set(w) for m in site.heard),
            "new workers in a heartbeat",
        )
        assert await site.value("a", os.getpid) not in before
        assert not site.deaths
