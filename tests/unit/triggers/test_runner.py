"""The part `sources` ends with its publisher, so that the supervisor starts it again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from upon.config import Settings
from upon.part import Part
from upon.triggers import runner
from upon.triggers.publisher import Publisher

TEXT = "version: 1\nsources:\n  - {name: in, kind: filesystem, path: in}\n"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "in").mkdir()
    (tmp_path / "sources.yaml").write_text(TEXT)
    monkeypatch.setenv("UPON_KAFKA", "127.0.0.1:9")
    return Settings.load(tmp_path)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_: Publisher) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Publisher, "_connect", connect)


@pytest.mark.usefixtures("broken")
async def test_the_part_ends_when_its_publisher_does(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await asyncio.wait_for(runner.main(Part("sources"), settings), 60)


@pytest.mark.usefixtures("broken")
async def test_so_does_a_watch(settings: Settings, tmp_path: Path) -> None:
    watching = runner.watch(Part("watch"), settings, [tmp_path / "in"], lambda _: None)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await asyncio.wait_for(watching, 60)


async def test_without_kafka_the_part_is_ready_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "READY_WITHIN", 0.2)
    ready = asyncio.Event()
    part = Part("sources")
    monkeypatch.setattr(part, "ready", lambda **_: ready.set())
    running = asyncio.create_task(runner.main(part, settings))
    await asyncio.wait_for(ready.wait(), 60)
    part.stopping.set()
    await asyncio.wait_for(running, 60)
