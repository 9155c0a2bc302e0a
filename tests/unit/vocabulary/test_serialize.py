"""Serialization: types survive, the method is named by the first byte, plain data needs nobody's code."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon import serialize
from upon.errors import InputError, PayloadTooLarge
from upon.messages import MAX_PAYLOAD

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=10,
)


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


@given(values)
def test_values_survive_with_their_types(value: Any) -> None:
    assert _same(serialize.loads(serialize.dumps(value)), value)


@given(st.lists(values, max_size=3), st.dictionaries(st.text(), values, max_size=3))
def test_calls_survive(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert _same(list(serialize.unpack_call(serialize.pack_call(args, kwargs))), [args, kwargs])


def test_the_method_is_the_first_byte() -> None:
    assert serialize.dumps([1, "a", {"b": None}])[:1] == b"m"
    assert serialize.dumps((1, 2))[:1] == b"p"
    assert serialize.dumps(lambda: 1)[:1] == b"c"
    assert serialize.loads(serialize.dumps(lambda x: x + 1))(1) == 2
    assert serialize.dumps(2**70)[:1] == b"p"
    assert math.isnan(serialize.loads(serialize.dumps(math.nan)))


def test_plain_data_is_read_without_running_code_and_nothing_else_is() -> None:
    assert serialize.loads_plain(serialize.dumps_plain({"a": [1]})) == {"a": [1]}
    with pytest.raises(InputError, match="not plain data"):
        serialize.loads_plain(serialize.dumps((1,)))
    with pytest.raises(InputError, match="damaged"):
        serialize.loads_plain(b"m\xc1")
    with pytest.raises(InputError, match="unknown serialization method"):
        serialize.loads(b"x123")


def test_a_payload_over_the_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match="the limit is"):
        serialize.dumps(b"x" * (MAX_PAYLOAD + 1))


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one}{two}")

    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_travels_even_when_it_cannot_say_what_it_is() -> None:
    failure = serialize.dump_failure(Odd(1, 2), "the traceback")
    assert (failure.type, failure.traceback) == ("Odd", "the traceback")
    assert serialize.loads(failure.payload).args == ("12",)
    assert "__str__ raised RuntimeError" in failure.message
    assert failure.kinds == ("Odd", "Exception")
    plain = serialize.dump_failure(FileNotFoundError(2, "gone"))
    assert plain.kinds == ("FileNotFoundError", "OSError", "Exception")
    assert repr(serialize.loads(plain.payload)) == "FileNotFoundError(2, 'gone')"


def test_a_chunk_keeps_its_columns() -> None:
    assert serialize.unpack_chunk(serialize.pack_chunk([range(3), "abc"])) == [[0, 1, 2], ["a", "b", "c"]]


@pytest.mark.parametrize("text", ["a\udcff", ["a\udcff"], {"\ud800": 1}, [["x"], {"k": "\udfff"}]])
def test_text_that_is_no_utf8_travels(text: object) -> None:
    assert serialize.loads(serialize.dumps(text)) == text
    assert serialize.unpack_call(serialize.pack_call([text], {"k": text})) == ([text], {"k": text})
    assert serialize.unpack_chunk(serialize.pack_chunk([[text, text]])) == [[text, text]]


HOSTILE = [b"\x91" * 100_000, b"\x81\xa0" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
           b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xa1\xff", b"", b"\xd4\x00", b"\xc9"]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_plain_data_is_a_clear_error(data: bytes) -> None:
    for load in (serialize.loads, serialize.loads_plain):
        with pytest.raises(InputError, match="damaged payload"):
            load(b"m" + data)


@given(st.binary(max_size=60))
def test_any_bytes_are_plain_data_or_a_clear_error(data: bytes) -> None:
    with contextlib.suppress(InputError):
        serialize.loads_plain(b"m" + data)
