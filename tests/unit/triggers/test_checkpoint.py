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


def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    Checkpoint(tmp_path).close()
    (tmp_path / "checkpoint.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(SourceError, match=r"damaged .*Remove it; the source then announces again"):
        Checkpoint(tmp_path)


def test_many_keys_are_set_together(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.set_all({f"/in/{n}": n for n in range(10_000)})
    checkpoint.close()
    assert len(reopened(tmp_path)) == 10_000


def test_a_path_that_is_no_utf8_is_a_key(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.set("/in/caf\udce9", "1-2-3")
    assert "/in/caf\udce9" in checkpoint
    checkpoint.close()
    assert reopened(tmp_path) == {"/in/caf\udce9": "1-2-3"}


def test_it_is_read_while_its_owner_writes(tmp_path: Path) -> None:
    owner = Checkpoint(tmp_path)
    owner.set("a", 1)
    reader = Checkpoint.open_for_reading(tmp_path)
    owner.set("b", 2)
    assert dict(reader.items()) == {"a": 1, "b": 2}
    with pytest.raises(SourceError, match="cannot be read or written"):
        reader.set("c", 3)
    reader.close()
    owner.close()
    with pytest.raises(SourceError, match="cannot be read"):
        Checkpoint.open_for_reading(tmp_path / "no")


def test_a_full_disk_is_an_error_and_what_was_set_before_stays(small_disk: Path) -> None:
    checkpoint = Checkpoint(small_disk / "in")
    checkpoint.set("a", 1)
    filler = small_disk / "filler"
    with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
        file.write(b"x" * (1 << 27))
    with pytest.raises(SourceError, match=r"cannot be read or written: .*full"):
        checkpoint.set_all({f"key{n}": "x" * 1000 for n in range(1000)})
    filler.unlink()
    checkpoint.set("b", 2)
    checkpoint.close()
    assert reopened(small_disk / "in") == {"a": 1, "b": 2}


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
