"""A child is heard when it is ready, and later, whatever the length of what it says."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from upon.embedded.child import Child

TELLS = """
import os, sys
from upon.part import Part
part = Part("sources")
part.ready(sources=["x" * 60] * 3000)
part.report(failing={"a": "no such folder"})
sys.stdin.read()
import time; time.sleep(600)
"""


async def test_it_is_heard_more_than_once_and_at_any_length(tmp_path: Path) -> None:
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    child = await Child.spawn([sys.executable, "-c", TELLS], {}, tmp_path / "logs" / "x.log", told.put_nowait)
    try:
        ready = await asyncio.wait_for(child.ready, 60)
        assert len(ready["sources"]) == 3000
        later = await asyncio.wait_for(told.get(), 60)
        assert later["failing"] == {"a": "no such folder"}
        assert later["sources"] == ready["sources"]
    finally:
        child.kill_group()
        assert await child.wait() < 0


async def test_one_that_ends_without_a_word_is_not_ready(tmp_path: Path) -> None:
    child = await Child.spawn([sys.executable, "-c", "raise SystemExit(3)"], {}, tmp_path / "x.log", print)
    assert await asyncio.wait_for(child.ready, 60) == {}
    assert await child.wait() == 3
