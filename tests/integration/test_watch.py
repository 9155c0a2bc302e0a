"""Watching folders in the foreground: what `upon watch DIR` does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.services import eventually
from upon.config import Settings
from upon.errors import ConfigError
from upon.events import Event
from upon.part import Part
from upon.topics import Topics
from upon.triggers import report
from upon.triggers.runner import main, watch


async def test_each_file_is_told_once_kafka_has_it(kafka: str, topics: Topics, tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "in", tmp_path / "b" / "in"]
    for folder in folders:
        folder.mkdir(parents=True)
    part, told = Part("sources"), asyncio.Queue[Event]()
    settings = Settings.load(tmp_path / "home", kafka=kafka, prefix=topics.prefix)
    watching = asyncio.create_task(watch(part, settings, folders, told.put_nowait, settle="300ms", recursive=None))
    try:
        for folder in folders:
            (folder / "x").write_text("x")
        events = [await asyncio.wait_for(told.get(), 30) for _ in folders]
        assert {event.subject for event in events} == {str(folder / "x") for folder in folders}
    finally:
        part.stopping.set()
        await asyncio.wait_for(watching, 30)
    assert len(list((tmp_path / "home" / "sources").iterdir())) == 2


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", kafka="127.0.0.1:9")
    with pytest.raises(ConfigError, match="no such folder"):
        await watch(Part("sources"), settings, [tmp_path / "no"], print)


async def test_without_a_sources_file_the_part_is_ready_and_idle(tmp_path: Path) -> None:
    part = Part("sources")
    running = asyncio.create_task(main(part, Settings.load(tmp_path / "home", kafka="127.0.0.1:9")))
    part.stopping.set()
    await asyncio.wait_for(running, 30)


async def test_a_sources_file_that_is_wrong_or_missing_is_said_and_ends_nothing(tmp_path: Path) -> None:
    """The system runs all the same, and `upon sources list` says why the sources do not."""
    (tmp_path / "s.yaml").write_text("version: 2\n")
    for name, problem in (("s.yaml", "s.yaml:1:10: version: must be 1"), ("no.yaml", "cannot be read")):
        settings = Settings.load(tmp_path / "home", kafka="127.0.0.1:9", sources=str(tmp_path / name))
        part = Part("sources")
        running = asyncio.create_task(main(part, settings))

        async def told() -> bool:
            found = report.read(tmp_path / "home")
            return found is not None and problem in found.problem  # noqa: B023

        await eventually(told, problem)
        assert not running.done()
        part.stopping.set()
        await running
