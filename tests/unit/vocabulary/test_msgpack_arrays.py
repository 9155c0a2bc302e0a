"""MessagePack arrays put together without decoding them."""

from __future__ import annotations

import msgspec
import pytest

from upon.errors import InputError
from upon.msgpack_arrays import array, elements

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


@pytest.mark.parametrize("counts", [[], [0], [3, 0, 12], [15], [16], [16, 65_519], [65_535, 1], [70_000, 2]])
def test_arrays_of_any_length_become_one(counts: list[int]) -> None:
    lists = [[f"{number}", *range(count - 1)] if count else [] for number, count in enumerate(counts)]
    parts = [elements(encode(one)) for one in lists]
    assert [part.count for part in parts] == counts
    assert decode(array(parts)) == [value for one in lists for value in one]


@pytest.mark.parametrize("value", [None, 5, "text", {"a": 1}, b"bytes"])
def test_what_is_no_list_has_no_elements(value: object) -> None:
    with pytest.raises(InputError):
        elements(encode(value))
    with pytest.raises(InputError):
        elements(b"")
