"""kill -9 of the process that runs the sources, in the middle of 200 file drops: each version is announced, and what
is announced twice has the same id, so that its effect takes place once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.reading import reading
from tests.source_process import sources_running
from upon.topics import Topics

DROPS = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
for n in range(200):
    if n % 3 == 0:
        part = folder / f"{n:03}.part"
        part.write_text("x" * n)
        part.rename(folder / f"{n:03}")
    else:
        with open(folder / f"{n:03}", "w") as file:
            file.write("x" * (n // 2)); file.flush(); time.sleep(0.002); file.write("x" * (n - n // 2))
    time.sleep(0.005)
"""


@pytest.mark.parametrize("mode", ["inotify", "polling"])
def test_files_dropped_around_a_kill(kafka: str, topics: Topics, tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    text = (
        "version: 1\nsources:\n"
        f"  - {{name: in, kind: filesystem, path: ../in, mode: {mode}, settle: 500ms, poll: 100ms}}\n"
    )
    with sources_running(tmp_path / "home", kafka, topics, text) as source, reading(kafka, topics) as reader:
        drops = subprocess.Popen([sys.executable, "-c", DROPS, str(folder)])
        for seen in (20, 80):
            reader.until(lambda events: len(events) > seen, f"more than {seen} events")  # noqa: B023
            source.kill()
            source.start()
        assert drops.wait(60) == 0
        expected = {str(folder / f"{n:03}") for n in range(200)}
        reader.until(lambda _: set(reader.subjects()) >= expected, "all 200 files")
        (folder / "last").write_text("last")
        reader.until(lambda _: str(folder / "last") in reader.subjects(), "the last file")
        assert set(reader.subjects()) == expected | {str(folder / "last")}
        final = [e for e in reader.events if e.data["size"] == Path(e.data["path"]).stat().st_size]
        assert {e.subject for e in final} == set(reader.subjects()), "a whole file was not announced"
        ids = {(e.subject, e.id) for e in reader.events}
        assert len(ids) == len(set(reader.subjects())), "a file has events of several ids: its effect would repeat"
