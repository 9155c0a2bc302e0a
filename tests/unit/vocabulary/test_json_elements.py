"""The elements of a JSON array, also of one that no parser takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.json_elements import split_array

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(values, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_an_array_is_split_into_what_it_holds(elements: list[Any], indent: int | None, ascii: bool) -> None:
    found = split_array(json.dumps(elements, indent=indent, ensure_ascii=ascii).encode())
    assert found is not None
    assert [json.loads(one) for one in found] == elements


@pytest.mark.parametrize(
    "text", [b"", b"1", b"{}", b"[", b"[1", b'["a]', b"[1]]", b"[1] x", b"[1]]]]", b'["\\"]', b'["\\']
)
def test_what_is_no_array_is_none(text: bytes) -> None:
    assert split_array(text) is None


def test_depth_and_size_do_not_matter() -> None:
    deep = b"[" * 500_000 + b"]" * 500_000
    strings = b"[" + b'"\\""' * 200_000 + b"]"
    assert list(split_array(b"[1," + deep + b',"],["]') or ()) == [b"1", deep, b'"],["']
    assert len(list(split_array(strings) or ())) == 1
    assert split_array(b'["' + b'\\"' * 500_000) is None
