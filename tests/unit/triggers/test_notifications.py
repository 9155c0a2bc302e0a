"""Hints from the kernel: the newest of each path, bounded, and at the path that the user wrote."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from watchdog.events import FileClosedEvent, FileCreatedEvent, FileMovedEvent

from upon.errors import SourceError
from upon.triggers import notifications as module
from upon.triggers.notifications import Kind, Notifications


def until(
    notifications: Notifications, news: threading.Event, condition: Callable[[dict[str, Kind]], bool]
) -> dict[str, Kind]:
    hints: dict[str, Kind] = {}
    deadline = time.monotonic() + 30
    while not condition(hints):
        assert time.monotonic() < deadline, hints
        news.wait(1.0)
        news.clear()
        hints |= notifications.take()[0]
    return hints


def test_the_newest_hint_of_a_path_counts() -> None:
    hints = Notifications("/in", recursive=True, wake=lambda: None)
    for event in (
        FileCreatedEvent("/in/a"),
        FileClosedEvent("/in/a"),
        FileMovedEvent("/in/a", "/in/b"),
        FileMovedEvent("", "/in/c"),
        FileMovedEvent("/in/d", ""),
        FileCreatedEvent("/in/a"),
    ):
        hints.dispatch(event)
    assert hints.take() == ({"/in/a": "created", "/in/b": "moved", "/in/c": "moved", "/in/d": "gone"}, False)
    assert hints.take() == ({}, False)


def test_too_many_are_dropped_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HINTS", 2)
    hints = Notifications("/in", recursive=True, wake=lambda: None)
    for name in "aabcb":
        hints.dispatch(FileClosedEvent(f"/in/{name}"))
    assert hints.take() == ({"/in/a": "closed", "/in/b": "closed"}, True)
    hints.dispatch(FileClosedEvent("/in/c"))
    assert hints.take() == ({"/in/c": "closed"}, False)


def test_a_folder_behind_a_symbolic_link_is_watched_under_the_links_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    news = threading.Event()
    with Notifications(str(tmp_path / "link"), recursive=True, wake=news.set) as hints:
        (tmp_path / "real" / "a.part").write_text("a")
        os.rename(tmp_path / "real" / "a.part", tmp_path / "real" / "a")
        found = until(hints, news, lambda hints: str(tmp_path / "link" / "a") in hints)
    assert found[str(tmp_path / "link" / "a")] == "moved"


def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with (
        pytest.raises(SourceError, match=r"cannot be watched: No such file"),
        Notifications(str(tmp_path / "no"), recursive=True, wake=lambda: None),
    ):
        pass


def test_the_end_of_the_folder_ends_the_watching(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with Notifications(str(folder), recursive=True, wake=lambda: None) as hints:
        folder.rmdir()
        deadline = time.monotonic() + 30
        while hints.alive:
            assert time.monotonic() < deadline
            time.sleep(0.01)
