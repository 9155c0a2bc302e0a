"""Sources that are applied while others run, and one that announces again: `upon sources` on real parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reading import reading
from tests.source_process import SourceProcess, sources_running
from upon.topics import Topics

FAST = "settle: 300ms, rescan: 1s"


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("a", "b")}
    for folder in made.values():
        folder.mkdir()
    return made


def upon(home: Path, kafka: str, topics: Topics, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "UPON_KAFKA": kafka, "UPON_PREFIX": topics.prefix, "UPON_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "upon", *words], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def until(ask: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 30
    while not (found := ask()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def listed(source: SourceProcess, home: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((home / "sources" / "report.json").read_text())
    assert found["pid"] == source.process.pid
    return {one["name"]: one for one in found["sources"]}


def test_sources_are_applied_while_they_run(
    kafka: str, topics: Topics, tmp_path: Path, folders: dict[str, Path]
) -> None:
    home, file = tmp_path / "home", tmp_path / "sources.yaml"
    first = f"version: 1\nsources:\n  - {{name: a, kind: filesystem, path: {folders['a']}, {FAST}}}\n"
    with sources_running(home, kafka, topics, first) as source, reading(kafka, topics) as reader:
        (folders["a"] / "1").write_text("1")
        reader.until(lambda events: len(events) == 1, "the first")
        until(lambda: listed(source, home)["a"]["events"] == 1, "the event is counted")

        file.write_text(first + f"  - {{name: b, kind: filesystem, path: {folders['b']}, {FAST}}}\n")
        applied = upon(home, kafka, topics, "sources", "apply", str(file))
        assert applied.returncode == 0, applied.stderr
        assert applied.stdout == "unchanged  a\nadded  b\n"
        (folders["b"] / "2").write_text("2")
        reader.until(lambda events: len(events) == 2, "what the new one saw")
        until(lambda: listed(source, home).get("b", {}).get("state") == "running", "the new one is listed as running")
        assert len(source.logged("watch")) == 2, "the one that did not change was not started anew"

        file.write_text(f"version: 1\nsources:\n  - {{name: a, kind: filesystem, path: {folders['b']}, {FAST}}}\n")
        assert upon(home, kafka, topics, "sources", "apply", str(file)).stdout == "changed  a\nremoved  b\n"
        until(lambda: list(listed(source, home)) == ["a"], "the other is gone")
        (folders["b"] / "3").write_text("3")
        reader.until(lambda events: str(folders["b"] / "3") in reader.subjects(), "the changed one follows")

        file.write_text("version: 1\nsources:\n  - {name: a, kind: filesystem}\n")
        refused = upon(home, kafka, topics, "sources", "apply", str(file))
        assert refused.returncode == 2
        assert "sources.yaml:3:5: sources[0].path: is required" in refused.stderr
        assert not source.logged("fail")
    assert "stopped" in upon(home, kafka, topics, "sources", "list").stdout


def test_one_wrong_source_leaves_the_others_running_and_is_listed(
    kafka: str, topics: Topics, tmp_path: Path, folders: dict[str, Path]
) -> None:
    text = (
        f"version: 1\nsources:\n  - {{name: a, kind: filesystem, path: {folders['a']}, {FAST}}}\n"
        "  - {name: wrong, kind: filesystem, path: x, settel: 1s}\n"
        f"  - {{name: away, kind: filesystem, path: {tmp_path / 'no'}, {FAST}}}\n"
    )
    home = tmp_path / "home"
    with sources_running(home, kafka, topics, text) as source, reading(kafka, topics) as reader:
        assert "unknown field" in source.info["failing"]["wrong"]
        (folders["a"] / "1").write_text("1")
        reader.until(lambda events: len(events) == 1, "the right one works")
        seen = {"a": "running", "wrong": "wrong", "away": "failing"}
        until(lambda: {name: one["state"] for name, one in listed(source, home).items()} == seen, "all are listed")
        assert "no such folder" in listed(source, home)["away"]["reason"]
        (tmp_path / "no").mkdir()
        until(lambda: listed(source, home)["away"]["state"] == "running", "it runs when its folder is there")


def test_what_is_past_is_announced_again_under_the_same_ids(
    kafka: str, topics: Topics, tmp_path: Path, folders: dict[str, Path]
) -> None:
    text = f"version: 1\nsources:\n  - {{name: a, kind: filesystem, path: {folders['a']}, {FAST}}}\n"
    home = tmp_path / "home"
    with sources_running(home, kafka, topics, text) as source, reading(kafka, topics) as reader:
        for name in ("1.h5", "2.h5", "3.txt", "gone.h5"):
            (folders["a"] / name).write_text(name)
        reader.until(lambda events: len(events) == 4, "all")
        until(lambda: listed(source, home)["a"]["events"] == 4, "Kafka has all")
        first = {event.subject: event.id for event in reader.events}
        (folders["a"] / "gone.h5").unlink()
        dry = upon(home, kafka, topics, "sources", "replay", "a", "--dry-run")
        assert dry.stdout.splitlines()[-1] == "3 events would be announced again", dry.stderr
        os.utime(folders["a"] / "2.h5", (0, 0))  # before the time that is asked for

        found = upon(home, kafka, topics, "sources", "replay", "a", "--path", "*.h5", "--since", "1h")
        assert found.stdout == "1 event announced again\n", found.stderr
        reader.until(lambda events: len(events) == 5, "one again")
        assert (reader.events[-1].subject, reader.events[-1].data["reason"]) == (str(folders["a"] / "1.h5"), "replayed")
        assert reader.events[-1].id == first[str(folders["a"] / "1.h5")]
        wrong = upon(home, kafka, topics, "sources", "replay", "b")
        assert wrong.returncode == 2
        assert "there is no source 'b'; there are: a" in wrong.stderr
