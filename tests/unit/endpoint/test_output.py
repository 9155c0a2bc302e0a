"""The file that a task prints into: bounded while it grows, and a byte keeps its place."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from upon.endpoint.output import KEPT, cut, look, new_output, take


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = new_output()
    yield descriptor
    os.close(descriptor)


def test_nothing_new_is_nothing(file: int) -> None:
    assert look(file, 0, 100) is None
    os.write(file, b"abc")
    assert look(file, 0, 100) == (0, b"abc")
    assert look(file, 1, 100) == (1, b"bc")
    assert look(file, 0, 2) == (1, b"bc")
    assert look(file, 3, 100) is None
    assert take(file) == "abc"
    assert look(file, 3, 100) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="holes are punched on Linux")
def test_what_is_cut_back_takes_no_room_and_its_end_keeps_its_place(file: int) -> None:
    for n in range(40):
        os.write(file, bytes([65 + n % 26]) * 16_384)
        cut(file, 2 * KEPT)
    found = os.fstat(file)
    assert found.st_size == 40 * 16_384
    assert found.st_blocks * 512 <= 3 * KEPT
    assert look(file, 0, 4) == (found.st_size - 4, bytes([65 + 39 % 26]) * 4)
    text = take(file)
    assert text.startswith(f"[{40 * 16_384 - KEPT:,} bytes before this were dropped]\n")
    assert "\0" not in text
    os.write(file, b"next")
    assert take(file) == "next"
