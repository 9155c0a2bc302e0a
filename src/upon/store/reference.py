"""What travels in place of a large payload: which store has it, under which key, how large it is, its checksum. Pure.

Guarantee: a reference that `decode` returns is safe to use, whoever wrote it: its key is no path, its numbers are in
range. The keys of one task's payloads begin alike, so a list of the store tells whose each is; there is no count of
references to keep, and nothing to read before it is deleted.
Keys are drawn, not made of the content: equal arguments of two tasks lie there twice, and each is freed with its own.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Literal

import msgspec
from msgspec import Struct

from upon.errors import InputError
from upon.ids import task_of

METHOD = b"r"
"""The first byte of a payload that is a reference."""
MAX_REFERENCE = 1024
"""Bytes of a reference at most."""
MAX_PLACE = 400
"""Characters of the place that it names."""
MAX_SIZE = 2**50
"""Bytes of a payload at most: what claims more is damaged."""
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,99}")
_KEY = re.compile(r"(~?[0-9A-Za-z-]{1,100})\.([ar])[0-9a-f]{16}")
_STORE = re.compile(r"[0-9a-f]{32}")

Kind = Literal["a", "r"]
"""Whether a payload is a task's arguments or its result (a value or an exception)."""
ARGUMENTS: Kind = "a"
RESULT: Kind = "r"


class Reference(Struct, frozen=True, array_like=True):
    """Where a payload lies."""

    store: str  # id of the store
    key: str  # see `new_key`
    size: int  # bytes
    checksum: int  # CRC-32 of all of them
    place: str = ""  # where the store is, as its writer saw it: for people


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Reference).decode


def encode(reference: Reference) -> bytes:
    """Return the payload that is this reference."""
    return METHOD + _pack(reference)


def decode(payload: bytes) -> Reference:
    """Return the reference that a payload is.

    Raises:
        InputError: it is none, or names what no store has.
    """
    if not is_reference(payload) or len(payload) > MAX_REFERENCE:
        raise InputError(f"a payload of {len(payload):,} bytes is no reference to a store")
    try:
        found = _unpack(memoryview(payload)[1:])
    except Exception as error:  # whatever the bytes
        raise InputError(f"damaged reference to a store: {error or type(error).__name__}") from error
    if not is_key(found.key) or not _STORE.fullmatch(found.store):
        raise InputError(
            f"a reference to the key {found.key[:100]!r} in the store {found.store[:100]!r}: no such can be"
        )
    if not (0 < found.size <= MAX_SIZE and 0 <= found.checksum < 2**32):
        raise InputError(f"a reference to {found.size} bytes with the checksum {found.checksum}: no such can be")
    if len(found.place) > MAX_PLACE or not found.place.isprintable():
        raise InputError("a reference to a store at a place that cannot be")
    return found


def is_reference(payload: bytes) -> bool:
    """Tell whether a payload is (or claims to be) a reference."""
    return payload[:1] == METHOD


def size_of(payload: bytes) -> int:
    """Return how many bytes a payload has, wherever they are. Raises as `decode`."""
    return decode(payload).size if is_reference(payload) else len(payload)


def new_key(task: str, kind: Kind) -> str:
    """Return a key that nobody has, for a payload of a task (or of one of its generations)."""
    return f"{owner_of(task)}.{kind}{secrets.token_hex(8)}"


def is_key(key: str) -> bool:
    """Tell whether this can be a key. One that can is a file's name and no path."""
    return _KEY.fullmatch(key) is not None


def owner_and_kind(key: str) -> tuple[str, str]:
    """Return whose payload a key names, and of which kind it is. Raises InputError for what is no key."""
    if (found := _KEY.fullmatch(key)) is None:
        raise InputError(f"{key[:100]!r} is no key of a store")
    return found[1], found[2]


def owner_of(task: str) -> str:
    """Return what the keys of a task's payloads begin with: its id where it can be a part of a file's name."""
    id = task_of(task)[0]
    return id if _ID.fullmatch(id) else f"~{hashlib.sha256(id.encode(errors='surrogatepass')).hexdigest()[:32]}"
