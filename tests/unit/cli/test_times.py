from __future__ import annotations

import time

import pytest

from upon.cli.times import moment, moment_ns
from upon.errors import InputError
from upon.events import time_ns


def test_an_age_is_a_time_so_long_ago() -> None:
    before = time.time_ns()
    since = moment_ns("2h", "--since")
    assert since is not None
    assert before - 7_200_000_000_000 <= since <= time.time_ns() - 7_200_000_000_000
    text = moment("90s", "--since")
    assert text is not None
    assert abs(time_ns(text) - (time.time_ns() - 90_000_000_000)) < 60_000_000_000


def test_a_time_is_itself_and_none_is_none() -> None:
    assert moment("2026-03-01T12:00:00.123457+02:00", "--since") == "2026-03-01T10:00:00.123457Z"
    assert moment(None, "--since") is None
    assert moment_ns(None, "--since") is None


@pytest.mark.parametrize("wrong", ["noon", "", "-1h", "9" * 400 + "d", "99999999d"])
def test_what_is_neither_names_its_option(wrong: str) -> None:
    with pytest.raises(InputError, match="--until"):
        moment(wrong, "--until")
