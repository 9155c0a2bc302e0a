"""Previews are short, cheap and survive anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upon.endpoint.preview import BIG, LENGTH, preview


class Broken:
    def __repr__(self) -> str:
        raise SystemExit("no")


class Untouchable:
    """Its repr must not be called when it is big."""

    def __repr__(self) -> str:
        raise AssertionError

    shape = (1000, 1000)
    dtype = "float32"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (3, "3"),
        ("a", "'a'"),
        ({"b": 1, "a": [2]}, "{'b': 1, 'a': [2]}"),
        ({3}, "{3}"),
        (frozenset({3}), "frozenset({3})"),
        (set(), "set()"),
        (b"ab", "b'ab'"),
    ],
)
def test_small_values_read_as_their_repr(value: Any, text: str) -> None:
    assert preview(value, 10) == text


def test_an_int_too_long_to_print() -> None:
    assert preview([10**5000], 10) == "[<int of 16,610 bits>]"


def test_a_broken_repr() -> None:
    assert preview(Broken(), 10) == "<Broken (its __repr__ raised SystemExit)>"
    assert preview([Broken()], 10) == "[<Broken (its __repr__ raised SystemExit)>]"


def test_a_big_object_is_described_and_not_asked() -> None:
    assert preview(Untouchable(), BIG + 1) == "<Untouchable shape=(1000, 1000) dtype=float32>"


def test_big_values_are_cut() -> None:
    for value in ("x" * 10**6, b"x" * 10**6, list(range(10**6)), dict.fromkeys(range(10**6)), set(range(10**5))):
        assert len(preview(value, 10**6)) <= LENGTH


def test_lone_surrogates_can_travel() -> None:
    assert preview("\ud800", 10).encode()

    class Odd:
        def __repr__(self) -> str:
            return "\ud800"

    assert preview(Odd(), 10) == "\\ud800"


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_plain_value(value: Any) -> None:
    assert len(preview(value, 100)) <= LENGTH
