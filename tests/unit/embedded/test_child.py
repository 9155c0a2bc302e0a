"""A child is heard when it is ready, whatever the length of what it says."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from upon.embedded.child import Child
from upon.embedded.logfile import LARGEST

TELLS = """
import time
from upon.part import Part
Part("sources").ready(sources=["x" * 60] * 3000)
time.sleep(600)
"""


async def test_it_is_heard_at_any_length(tmp_path: Path) -> None:
    child = await Child.spawn([sys.executable, "-c", TELLS], {}, tmp_path / "logs" / "x.log")
    try:
        ready = await asyncio.wait_for(child.ready, 60)
        assert len(ready["sources"]) == 3000
    finally:
        child.kill_group()
        assert await child.wait() < 0


async def test_one_that_ends_without_a_word_is_not_ready(tmp_path: Path) -> None:
    child = await Child.spawn([sys.executable, "-c", "raise SystemExit(3)"], {}, tmp_path / "x.log")
    assert await asyncio.wait_for(child.ready, 60) == {}
    assert await child.wait() == 3


async def test_its_log_is_moved_while_it_runs_and_has_every_line(tmp_path: Path) -> None:
    says = "import sys\nfor n in range(130_000): print(f'{n:>99}')\nsys.stderr.write('the last word')"
    child = await Child.spawn([sys.executable, "-c", says], {}, tmp_path / "x.log")
    assert await asyncio.wait_for(child.wait(), 60) == 0
    before, now = (tmp_path / "x.log.1").read_text(), (tmp_path / "x.log").read_text()
    assert LARGEST <= len(before) <= LARGEST + 100
    *lines, last = (before + now).split("\n")
    assert [int(line) for line in lines] == list(range(130_000))
    assert last == "the last word"


async def test_who_starts_it_leaves_no_descriptor_open(tmp_path: Path) -> None:
    open_before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        child = await Child.spawn([sys.executable, "-c", "print(1)"], {}, tmp_path / "x.log")
        await child.ready
        await child.wait()
    deadline = time.monotonic() + 30
    while len(os.listdir("/dev/fd")) > open_before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert (tmp_path / "x.log").read_text() == "1\n" * 5
