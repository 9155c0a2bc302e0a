"""What the machine refuses is said in words; every other error is not its fault."""

from __future__ import annotations

import errno

import pytest

from upon.machine import REMEDIES, refusal


@pytest.mark.parametrize("number", REMEDIES)
def test_the_file_is_named_with_what_to_do(number: int) -> None:
    said = refusal(OSError(number, "refused", "/data/upon/x"))
    assert said.startswith("/data/upon/x: ")
    assert refusal(OSError(number, "refused")) == said.removeprefix("/data/upon/x: ")


def test_other_errors_are_not_the_machines() -> None:
    assert refusal(OSError(errno.ENOENT, "no such file", "x")) == ""
    assert refusal(ValueError("x")) == ""
