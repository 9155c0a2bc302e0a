"""Every kind survives the wire; other versions and damage are refused with the reason."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upon.dispatcher import protocol, wire
from upon.dispatcher.protocol import (
    Assignment,
    Attempt,
    Beat,
    Begun,
    Bye,
    Call,
    Cancel,
    Code,
    Death,
    Heartbeat,
    Lost,
    Need,
    Outcome,
    Output,
    Piece,
    Ready,
    Reject,
    Results,
    Return,
    Returned,
    Started,
    Stop,
    Stored,
    Tasks,
)
from upon.dispatcher.wire import ProtocolError
from upon.messages import Failure, FunctionCode, ItemFailure, Resources

HEAD = b"\x02"
FAILURE = Failure(type="ValueError", message="bad", kinds=("ValueError", "Exception"))
FROM_MANAGER: list[protocol.FromManager] = [
    Ready("h-1-ab", "h", 1, (2, 3), 2, "3.11", ("c0",), (Attempt("a", 1),)),
    Results((Outcome("a", 1, "succeeded", b"m\x01"), Outcome("b", 2, "failed", failure=FAILURE))),
    Results((Outcome("c", 1, "succeeded", bad_items=(ItemFailure(index=3, failure=FAILURE),)),)),
    Started((Begun("a", 1, 123, 7),)),
    Output((Piece("a", 1, 5, 8, "é\n"),)),
    Lost((Death("a", 1, "killed", 7, -9, 1, 2),)),
    Returned((Attempt("a", 1),)),
    Need(("c0",)),
    Heartbeat(1, (2, 3), 4),
    Bye("stopped"),
]
FROM_DISPATCHER: list[protocol.FromDispatcher] = [
    Tasks.of((Assignment("a", 1, "c0", "f", b"\x00" * 10, 3, 1.5),)),
    Return((Attempt("a", 1),)),
    Code(FunctionCode(hash="c0", body=b"x", python="3.11")),
    Cancel((Attempt("a", 1),)),
    Beat(False, "s"),
    Stored((Attempt("a", 1),)),
    Stop(False, "why"),
    Reject("no"),
]


def header(kind: str) -> bytes:
    return bytes((protocol.VERSION, ord(kind))) + bytes(8)


@pytest.mark.parametrize("message", FROM_MANAGER, ids=lambda m: type(m).__name__)
def test_what_a_manager_says_survives_the_wire(message: protocol.FromManager) -> None:
    assert wire.from_manager(wire.pack(message)) == message


@pytest.mark.parametrize("message", FROM_DISPATCHER, ids=lambda m: type(m).__name__)
def test_what_a_dispatcher_says_survives_the_wire(message: protocol.FromDispatcher) -> None:
    assert wire.from_dispatcher(wire.pack(message)) == message


def test_every_kind_is_tested_here() -> None:
    assert {type(m) for m in (*FROM_MANAGER, *FROM_DISPATCHER)} == {
        *protocol.FROM_MANAGER.values(),
        *protocol.FROM_DISPATCHER.values(),
    }


def test_another_version_is_refused_with_both_versions() -> None:
    head, body = wire.pack(Heartbeat(0))
    with pytest.raises(ProtocolError, match="protocol version 9; this side speaks versions 3 to 4"):
        wire.from_manager([bytes((9, *head[1:])), body])


def test_a_newer_kind_bears_its_version_and_the_others_theirs() -> None:
    """So a peer of the version before reads all but what it does not know."""
    assert wire.pack(Output(()))[0][0] == wire.version_of(Output) == 4
    assert wire.pack(Heartbeat(0))[0][0] == 3


def test_a_rejection_is_read_whatever_its_version() -> None:
    head, body = wire.pack(Reject("too old"))
    assert wire.from_dispatcher([bytes((9, *head[1:])), body]) == Reject("too old")


@given(
    st.lists(
        st.builds(
            Assignment,
            st.text(max_size=3),
            st.integers(1, 2),
            st.sampled_from(["c0", "c1"]),
            st.sampled_from(["f", "g"]),
            st.binary(max_size=3),
            st.integers(0, 2),
            st.sampled_from([0.0, 1.5]),
            st.sampled_from(["", "why"]),
            st.sampled_from([None, Resources(cores=2), Resources(memory=7, accelerators=1)]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_assignments_survive_their_columns(assignments: list[Assignment]) -> None:
    message = wire.from_dispatcher(wire.pack(Tasks.of(assignments)))
    assert isinstance(message, Tasks)
    assert message.assignments == assignments


@pytest.mark.parametrize(
    "damaged",
    [
        Tasks((Call("c", "f"),), ("a", "b"), (1,), (b"", b"")),
        Tasks((Call("c", "f"),), ("a",), (1,), (b"",), (1,)),
        Tasks((Call("c", "f"),), ("a",), (1,), (b"",), (-1,)),
        Tasks((), ("a",), (1,), (b"",)),
        Tasks((Call("c", "f"),), ("a",), (1,), (b"",), (), (0, 0)),
    ],
)
def test_columns_that_do_not_agree_are_damage(damaged: Tasks) -> None:
    with pytest.raises(ProtocolError, match="damaged Tasks"):
        wire.from_dispatcher(wire.pack(damaged))


def test_a_message_bears_the_dispatchers_epoch() -> None:
    assert wire.epoch_of(wire.pack(Beat(), 1 << 60)) == 1 << 60
    assert wire.epoch_of([]) == wire.epoch_of([b"x"]) == 0


def test_a_side_does_not_read_its_own_kinds() -> None:
    with pytest.raises(ProtocolError, match="unknown kind b'T'"):
        wire.from_manager(wire.pack(Tasks((), (), (), ())))


@pytest.mark.parametrize("frames", [[], [HEAD + b"R"], [HEAD + b"R", b"", b""], [b"R", b"x"]])
def test_wrong_number_of_frames_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="frames"):
        wire.from_manager(frames)


def test_damage_is_refused() -> None:
    with pytest.raises(ProtocolError, match="damaged Ready"):
        wire.from_manager([header("R"), b"\xc1"])


def test_a_field_appended_later_is_ignored_and_a_missing_one_has_its_default() -> None:
    longer = msgspec.msgpack.encode([1, [2], 3, "a field of the future"])
    assert wire.from_manager([header("h"), longer]) == Heartbeat(1, (2,), 3)
    assert wire.from_manager([header("h"), msgspec.msgpack.encode([1])]) == Heartbeat(1)


@pytest.mark.parametrize("nest", [b"\x91", b"\x81\xa1k", b"\xdd\x00\x00\x00\x01"], ids=["array", "map", "long array"])
@pytest.mark.parametrize("kind", [chr(kind) for kind in (*protocol.FROM_MANAGER, *protocol.FROM_DISPATCHER)])
def test_deep_nesting_is_damage(kind: str, nest: bytes) -> None:
    read = wire.from_manager if ord(kind) in protocol.FROM_MANAGER else wire.from_dispatcher
    for body in (b"\xdc\x00\x40" + b"\x01" * 20 + nest * 100_000, nest * 100_000):
        with pytest.raises(ProtocolError):
            read([header(kind), body])


def test_a_field_of_a_later_version_that_nests_too_deep_is_damage() -> None:
    head, body = wire.pack(Bye("x"))
    assert body[0] == 0x91
    assert wire.from_manager([head, b"\x92" + body[1:] + b"\xc0"]) == Bye("x")
    with pytest.raises(ProtocolError, match="damaged Bye"):
        wire.from_manager([head, b"\x92" + body[1:] + b"\x91" * 1500 + b"\xc0"])


@settings(max_examples=500, deadline=None)
@given(
    which=st.integers(0, len(FROM_MANAGER) + len(FROM_DISPATCHER) - 1),
    at=st.floats(0, 1),
    put=st.binary(max_size=12),
    cut=st.integers(0, 12),
    frames=st.none() | st.lists(st.binary(max_size=40), max_size=4),
)
def test_whatever_comes_is_read_or_refused(
    which: int, at: float, put: bytes, cut: int, frames: list[bytes] | None
) -> None:
    """Frames of chance, and every kind with a piece of its body replaced."""
    head, body = wire.pack([*FROM_MANAGER, *FROM_DISPATCHER][which])
    place = int(at * len(body))
    damaged = frames if frames is not None else [head, body[:place] + put + body[place + cut :]]
    for read in (wire.from_manager, wire.from_dispatcher):
        with suppress(ProtocolError):
            read(damaged)
