"""A part's log: moved aside while the part runs, no line lost, a full disk survived."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.embedded.logfile import END, LogFile, end, size


def written(path: Path) -> bytes:
    before = path.with_name(path.name + ".1")
    return (before.read_bytes() if before.exists() else b"") + path.read_bytes()


@given(pieces=st.lists(st.binary(max_size=40) | st.just(b"a line\n"), max_size=30), largest=st.integers(1, 60))
def test_what_was_written_last_is_there_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], largest: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "x.log"
    log = LogFile(path, largest)
    for piece in pieces:
        log.write(piece)
    log.close()
    said = b"".join(pieces)
    assert said.endswith(written(path))
    longest = max(map(len, said.split(b"\n"))) + 1
    for file in path.parent.iterdir():
        assert file.stat().st_size <= largest + longest
    before = path.with_name("x.log.1")
    if before.exists():
        assert before.read_bytes().endswith(b"\n"), "a line was cut in two"
        assert before.stat().st_size >= largest, "moved too early"


def test_nothing_is_lost_over_one_move(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = LogFile(path, 1000)
    lines = b"".join(b"line %d\n" % n for n in range(150))
    for at in range(0, len(lines), 7):
        log.write(lines[at : at + 7])
    assert written(path) == lines
    assert path.with_name("x.log.1").exists()


def test_a_part_that_starts_again_appends(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        log = LogFile(tmp_path / "x.log")
        log.write(text)
        log.close()
    assert (tmp_path / "x.log").read_bytes() == b"first\nsecond\n"


def test_a_full_disk_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile(tmp_path / "x.log")
    log.write(b"before\n")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.write(b"0123456789\n")
        log.write(b"0123456789\n")
    log.write(b"after\n")
    assert (tmp_path / "x.log").read_text().splitlines() == [
        "before",
        '{"event": "22 bytes of this log were not written: no room", "action": "log"}',
        "after",
    ]


def test_a_pipe_is_read_to_what_is_there_and_to_its_end(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log")
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b"one\n")
    assert log.read(reading)
    assert log.read(reading)
    os.write(writing, b"two\n")
    os.close(writing)
    assert not log.read(reading)
    assert (tmp_path / "x.log").read_bytes() == b"one\ntwo\n"
    os.close(reading)


def test_the_end_of_a_log_is_that_of_the_last_start(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert (size(path), end(path, 0)) == (0, "")
    path.write_text("the life before\n")
    begin = size(path)
    with path.open("a") as log:
        log.write("died of this\n")
    assert end(path, begin) == "died of this\n"
    path.write_text("anew\n")
    assert end(path, begin) == "anew\n"
    path.write_text("x" * END + "last")
    assert len(said := end(path, 0)) == END
    assert said.endswith("xlast")
