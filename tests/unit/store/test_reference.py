"""References that anybody may have written: those that `decode` returns are safe to use."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.errors import InputError
from upon.ids import new_id
from upon.store import reference
from upon.store.reference import ARGUMENTS, RESULT, Reference

STORE, KEY = "0" * 32, "t.a0123456789abcdef"
GOOD = Reference(STORE, KEY, 10, 1, "host:/a/store")


def test_a_reference_comes_back() -> None:
    assert reference.decode(reference.encode(GOOD)) == GOOD
    assert reference.size_of(reference.encode(GOOD)) == 10
    assert reference.size_of(b"m12") == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"key": "../../../etc/passwd"},
        {"key": "/etc/passwd"},
        {"key": "t.a0123456789abcdef/../x"},
        {"key": "t.a0123456789abcdef\n"},
        {"key": ".t.a0123456789abcdef.part"},
        {"key": "t\0.a0123456789abcdef"},
        {"key": ""},
        {"key": "x" * 101 + ".a0123456789abcdef"},
        {"store": "../x"},
        {"store": ""},
        {"size": 0},
        {"size": -1},
        {"size": 2**63},
        {"checksum": 2**32},
        {"checksum": -1},
        {"place": "x" * 401},
        {"place": "a\x1b[31mb"},
    ],
)
def test_a_hostile_one_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError):
        reference.decode(reference.encode(msgspec.structs.replace(GOOD, **fields)))


@pytest.mark.parametrize(
    "payload", [b"", b"r", b"m\x01", b"r\x95", b"r" + b"\x91" * 900, b"r\xdd\xff\xff\xff\xff", b"r" * 2000]
)
def test_what_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(InputError):
        reference.decode(payload)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_reference_or_a_clear_error(data: bytes) -> None:
    with contextlib.suppress(InputError):
        assert reference.is_key(reference.decode(b"r" + data).key)


@given(st.text(max_size=220) | st.just(new_id()), st.sampled_from([ARGUMENTS, RESULT]))
def test_the_keys_of_a_task_begin_alike_and_are_names_of_files(task: str, kind: reference.Kind) -> None:
    key = reference.new_key(task, kind)
    assert reference.is_key(key)
    assert "/" not in key
    assert len(key.encode()) < 200
    assert reference.owner_and_kind(key) == (reference.owner_of(task), kind)
    assert reference.owner_of(f"{task}#2") == reference.owner_of(task) or not task
    assert reference.new_key(task, kind) != key


def test_a_usual_id_can_be_read_from_the_key() -> None:
    id = new_id()
    assert reference.owner_of(f"{id}#1") == id
    assert reference.owner_of("a/b").startswith("~")
    with pytest.raises(InputError):
        reference.owner_and_kind("a/b")
