"""MessagePack arrays as they stand: the elements of several become those of one, and nobody decodes them. Pure.

Specification: https://github.com/msgpack/msgpack/blob/master/spec.md#array-format-family
Not here: whether the elements are what they should be. Whoever decodes them finds out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from upon.errors import InputError

Bytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Elements:
    """So many encoded values, one behind the other."""

    count: int
    body: Bytes


def elements(array: Bytes) -> Elements:
    """Return the elements of an array that a decoder has found to be well-formed.

    Raises:
        InputError: the value is no array.
    """
    kind = array[0] if array else 0
    if 0x90 <= kind <= 0x9F:
        return Elements(kind & 0x0F, array[1:])
    if kind == 0xDC:
        return Elements(struct.unpack_from(">H", array, 1)[0], array[3:])
    if kind == 0xDD:
        return Elements(struct.unpack_from(">I", array, 1)[0], array[5:])
    raise InputError("not a list")


def array(parts: list[Elements]) -> bytes:
    """Return one array with the elements of all parts, in order."""
    count = sum(part.count for part in parts)
    if count < 16:
        head = bytes([0x90 | count])
    else:
        head = struct.pack(">BH", 0xDC, count) if count < 1 << 16 else struct.pack(">BI", 0xDD, count)
    return b"".join([head, *(part.body for part in parts)])
