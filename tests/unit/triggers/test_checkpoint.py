"""What a source remembers, over closes, kills and damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.errors import SourceError
from upon.triggers.checkpoint import Checkpoint


def reopened(folder: Path) -> dict[str, object]:
    checkpoint = Checkpoint(folder)
    try:
        return dict(checkpoint.items())
    finally:
        checkpoint.close()


@given(st.lists(st.tuples(st.text("abc", max_size=2), st.none() | st.integers(0, 9)), max_size=30))
def test_it_is_a_dictionary_that_outlives_its_process(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int | None]]
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    model: dict[str, object] = {}
    checkpoint = Checkpoint(folder)
    for key, value in steps:
        if value is None:
            checkpoint.delete(key)
            model.pop(key, None)
        else:
            checkpoint.set(key, value)
            model[key] = value
    assert dict(checkpoint.items()) == model
    checkpoint.close()
    assert reopened(folder) == model


def test_a_kill_loses_nothing_that_was_set(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib; from upon.triggers.checkpoint import Checkpoint\n"
        "c = Checkpoint(pathlib.Path(sys.argv[1]))\n"
        "for n in range(1000): c.set(f'k{n}', n)\n"
        "print('set', flush=True); input()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    assert len(reopened(tmp_path)) == 1000


def test_a_line_cut_short_by_a_crash_is_ignored_and_written_over(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.set("a", 1)
    checkpoint.close()
    with checkpoint.path.open("ab") as file:
        file.write(b'{"k":"b","v"')
    checkpoint = Checkpoint(tmp_path)
    checkpoint.set("c", 3)
    checkpoint.close()
    assert reopened(tmp_path) == {"a": 1, "c": 3}


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.jsonl").write_text('{"k":"a","v":1}\nrubbish\n{"k":"b","v":2}\n')
    with pytest.raises(SourceError, match=r"line 2: damaged .*Remove that line"):
        Checkpoint(tmp_path)


def test_the_file_stays_small_however_often_a_key_is_set(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    for n in range(10_000):
        checkpoint.set("until", n)
    assert len(checkpoint.path.read_bytes().splitlines()) <= 1000
    checkpoint.close()
    assert reopened(tmp_path) == {"until": 9_999}


def test_two_processes_cannot_run_one_source(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "incoming")
    with pytest.raises(SourceError, match="another process runs the source 'incoming'"):
        Checkpoint(tmp_path / "incoming")
    checkpoint.close()
    checkpoint.close()
    Checkpoint(tmp_path / "incoming").close()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="must be writable"):
        Checkpoint(tmp_path / "file" / "in")
