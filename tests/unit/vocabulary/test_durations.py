"""Durations as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.durations import DurationError, format_duration, parse_duration, parse_past


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800.0),
        ("500ms", 0.5),
        ("2s", 2.0),
        ("1.5h", 5400.0),
        ("7d", 604800.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        (" 3s ", 3.0),
        ("3", 3.0),
        (3, 3.0),
        (0.25, 0.25),
        ("0s", 0.0),
    ],
)
def test_reads_units_terms_and_numbers(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "3x", "3 s", "-1s", -1, True, None, "1s2", math.inf, math.nan, [], "1h-3m", "\u0661s"]
)
def test_refuses_what_is_no_duration_and_says_what_is(text: object) -> None:
    with pytest.raises(DurationError, match="500ms, 2s, 30m, 1h, 7d") as caught:
        parse_duration(text)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)


@given(st.integers(0, 10**9))
def test_what_is_formatted_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


def test_formats_in_the_largest_whole_unit() -> None:
    assert [format_duration(n) for n in (1800, 0.5, 90, 86400, 0)] == ["30m", "500ms", "90s", "1d", "0s"]


def test_a_moment_in_the_past() -> None:
    assert parse_past("90s", now_ns=100_000_000_000) == 10_000_000_000
    assert parse_past("1970-01-01T00:01:00Z") == 60_000_000_000
    assert parse_past("2026-03-01T12:00:00.123457+02:00") == 1_772_359_200_123_457_000, "to the microsecond"
    assert parse_past("2026-03-01") == parse_past("2026-03-01T00:00:00")
    for wrong in ("yesterday", "9" * 400 + "d", "0001-01-01T00:00:00+14:00", ""):
        with pytest.raises(DurationError, match="no moment in the past"):
            parse_past(wrong)
