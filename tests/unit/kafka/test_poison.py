"""No record, whatever its bytes, gets more than an InputError out of what reads it; every reader of every part."""

from __future__ import annotations

import struct
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.api import decode_from_client
from upon.dispatcher.codes import Codes
from upon.dispatcher.decisions.past import Past
from upon.dispatcher.feeds import control_input, invocation_input
from upon.errors import EventError, InputError
from upon.events import read_record
from upon.messages import (
    Cancel,
    DeadLetter,
    FunctionCode,
    Invocation,
    InvocationBatch,
    RegistryRecord,
    Result,
    ResultBatch,
    SiteStatus,
    decode,
    encode,
)
from upon.service.store.projection import project
from upon.streams.catalogue import Catalogue
from upon.topics import Topics

TOPICS = Topics("upon")
KINDS: list[Any] = [InvocationBatch, Cancel, ResultBatch, RegistryRecord, SiteStatus, DeadLetter]
VALID = [
    encode(InvocationBatch(site="s", invocations=(Invocation(id="i", code="c", function="f", payload=b"p"),))),
    encode(Cancel(ids=("a", "b"))),
    encode(ResultBatch(site="s", results=(Result(id="i", status="failed"),))),
    encode(FunctionCode(hash="h", body=b"b", python="3.11")),
    encode(SiteStatus(site="s", pid=1, host="h", at=1)),
    encode(DeadLetter(id="i", origin="t/0/1", part="streams", reason="r", headers=(("a", b"b"),))),
    b'[{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": [1.5, null]}}]',
]
DEEP = [b"\x91" * 100_000 + b"\xc0", b"\x81\xa1a" * 50_000 + b"\xc0", b"[" * 100_000, b'{"a":' * 50_000]
CLAIMS = [head + struct.pack(">I", 0xFFFFFFFF) for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9")]
UNKNOWN = [b"\x82\xa1x" + deep + b"\xa4site\xa1s" for deep in DEEP[:2]]  # nested in a field that nobody knows
HOSTILE = [*DEEP, *CLAIMS, *UNKNOWN, b"", b"\xc1", b"\x80", b"\x81\xa4type\xa4\x00\x00\x00\x80", b"\xff" * 50]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid record with bytes changed, left out, put in, or said again."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 3)):
            case 0 if data:
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at : at + draw(st.integers(1, 5))]
            case 2:
                data[at:at] = draw(st.binary(max_size=5))
            case 3:
                data[at:at] = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


values = st.none() | st.binary(max_size=80) | mutated() | st.sampled_from(HOSTILE)
keys = (
    st.none() | st.binary(max_size=20) | st.sampled_from([b"code/h", b"function/f@x", b"rule/\xff", b"/", b"function/"])
)
headers = st.none() | st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3)


def read_by_all(value: bytes | None, key: bytes | None, headers: Any) -> None:
    for kind in KINDS:
        with suppress(InputError):
            decode(value or b"", kind)
    with suppress(InputError):
        decode_from_client(value or b"")
    for topic in (TOPICS.results, TOPICS.deadletter, TOPICS.invocations("s"), TOPICS.registry, TOPICS.control("s")):
        record: Any = SimpleNamespace(
            topic=topic, partition=0, offset=3, key=key, value=value, headers=headers, timestamp=1
        )
        project([record], TOPICS, 5)
        invocation_input(record, "s", 5)
        control_input(record)
        Codes(lambda _: None, lambda _: None).take(record)
    Past().take(value or b"", "s")
    list(read_record(value, [(name, data or b"") for name, data in headers or ()]))
    catalogue = Catalogue()
    catalogue.take_registry(key or b"", value, 5)
    catalogue.take_site(value, 5)


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: f"{value[:6]!r}-{len(value)}")
def test_hostile_records(value: bytes) -> None:
    read_by_all(value, b"code/h", [("a", None)])
    for kind in KINDS:
        with pytest.raises(InputError):
            decode(value, kind)


@given(values, keys, headers)
def test_any_record(value: bytes | None, key: bytes | None, headers: Any) -> None:
    read_by_all(value, key, headers)


def test_an_event_that_is_none_is_said_to_be_none() -> None:
    for value in HOSTILE:
        assert all(isinstance(one, EventError) for one in read_record(value, []))
