"""kill -9 of a manager: its parent process, its workers and what they started end with it."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.integration.managing import gone, managed
from tests.integration.test_manager import leave_a_child


async def test_no_process_stays_behind(tmp_path: Path) -> None:
    async with managed(workers=2) as site:
        site.assign(site.task("a", leave_a_child, str(tmp_path)))
        await site.until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text(), "the child")
        processes = site.processes()
        child = psutil.Process(int((tmp_path / "child").read_text()))
        assert child in processes
        assert len(processes) == 5, "manager, parent, two workers, one child"
        assert site.process is not None
        site.process.kill()
        site.process.wait()
        await gone(site, processes)
        await site.until(lambda: site.gone == 1, "the broken connection")
