"""The messages of `upon.dispatcher.protocol` as bytes: header and body, sizes, versions.

Guarantee: whatever the bytes, reading ends in a message or a `ProtocolError`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from upon.dispatcher.protocol import (
    FROM_DISPATCHER,
    FROM_MANAGER,
    OLDEST,
    VERSION,
    Assignment,
    Frame,
    FromDispatcher,
    FromManager,
    Outcome,
    Output,
    Reject,
    Tasks,
)
from upon.errors import InputError
from upon.messages import Failure

_FIELDS = 200
"""Bytes of what has no variable length in an outcome or an assignment, generously."""
_SINCE: dict[type[Frame], int] = {Output: 4}
"""Kinds that changed, or came, after `OLDEST`: the version that understands them."""
_HEADER = struct.Struct(">BBQ")
_encode = msgspec.msgpack.Encoder().encode
_KINDS: dict[type[Frame], int] = {cls: kind for table in (FROM_MANAGER, FROM_DISPATCHER) for kind, cls in table.items()}
_decoders: dict[type[Frame], msgspec.msgpack.Decoder[Any]] = {cls: msgspec.msgpack.Decoder(cls) for cls in _KINDS}


class ProtocolError(InputError):
    """A message that is none of this protocol, or of another version of it."""


def assignment_bytes(one: Assignment) -> int:
    """Return how many bytes an assignment takes in a message, at most, even if it shares its call with no other."""
    return len(one.payload) + 4 * (len(one.function) + len(one.cause)) + len(one.code) + _FIELDS


def outcome_bytes(one: Outcome) -> int:
    """Return how many bytes an outcome takes in a message, at most."""
    size = len(one.payload) + _FIELDS
    if one.stdout or one.preview:
        size += _text(one.stdout) + _text(one.preview)
    if one.failure is not None:
        size += _failure_bytes(one.failure)
    return size + sum(_failure_bytes(item.failure) for item in one.bad_items) if one.bad_items else size


def _failure_bytes(one: Failure) -> int:
    texts = (one.type, one.message, one.traceback, one.unbuilt, *one.kinds)
    return len(one.payload) + sum(map(_text, texts)) + _FIELDS


def _text(text: str) -> int:
    return len(text) if text.isascii() else len(text) * 4


def version_of(cls: type[Frame]) -> int:
    """Return the version that understands a kind of message."""
    return _SINCE.get(cls, OLDEST)


def pack(message: FromManager | FromDispatcher, epoch: int = 0) -> list[bytes]:
    """Return the frames of a message: header and body.

    Args:
        epoch: of the dispatcher that says it, or that the manager serves.
    """
    cls = type(message)
    return [_HEADER.pack(version_of(cls), _KINDS[cls], epoch), _encode(message)]


def epoch_of(frames: Sequence[bytes]) -> int:
    """Return the epoch that a message bears; 0: none, or it is no message."""
    return int(_HEADER.unpack(frames[0])[2]) if frames and len(frames[0]) == _HEADER.size else 0


def from_manager(frames: Sequence[bytes]) -> FromManager:
    """Read what a manager sent (without its id, and the number that the ROUTER put in front).

    Raises:
        ProtocolError: it is of a version or kind not known here, or damaged.
    """
    return _unpack(frames, FROM_MANAGER)  # type: ignore[return-value]


def from_dispatcher(frames: Sequence[bytes]) -> FromDispatcher:
    """Read what the dispatcher sent. Reject is read whatever its version.

    Raises:
        ProtocolError: as for `from_manager`.
    """
    return _unpack(frames, FROM_DISPATCHER)  # type: ignore[return-value]


def _unpack(frames: Sequence[bytes], kinds: dict[int, type[Frame]]) -> Frame:
    if len(frames) != 2 or len(frames[0]) < 2:
        raise ProtocolError(f"{len(frames)} frames, not a header and a body")
    version, kind = frames[0][:2]
    if kind not in kinds:
        raise ProtocolError(f"message of unknown kind {bytes((kind,))!r}")
    cls = kinds[kind]
    if cls is not Reject and not (OLDEST <= version <= VERSION and len(frames[0]) == _HEADER.size):
        spoken = f"version {VERSION}" if OLDEST == VERSION else f"versions {OLDEST} to {VERSION}"
        raise ProtocolError(f"protocol version {version}; this side speaks {spoken}: upgrade the older one")
    try:
        body: Frame = _decoders[cls].decode(frames[1])
        if isinstance(body, Tasks):
            body.check()
    except Exception as error:  # whatever the bytes
        raise ProtocolError(f"damaged {cls.__name__}: {error}") from error
    return body
