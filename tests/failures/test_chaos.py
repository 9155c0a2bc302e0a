"""The short form of `make chaos`: a quarter of a minute of it, with faults that are the same each time."""

from __future__ import annotations

from pathlib import Path

from tests.failures.chaos import chaos
from upon.topics import Topics


async def test_nothing_is_lost_whatever_is_killed_or_stopped(kafka: str, topics: Topics, tmp_path: Path) -> None:
    await chaos(kafka, topics.prefix, tmp_path, seconds=15, seed=4)
