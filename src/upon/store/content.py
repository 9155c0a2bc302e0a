"""How a payload lies in a store: what would have travelled, its large buffers behind it, and a list of those.

    payload  buffer … buffer  footer   length of the footer (4 bytes, little endian)
    footer: MessagePack, [bytes of the payload, [[bytes, whether read-only], …]]

A buffer is written from where it is and read to where it stays: nothing of it is copied in between. The checksum
counts all bytes in their order, and is compared before anything is unpickled.
"""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

import msgspec
from msgspec import Struct

from upon.spool import Sink, Spool

PIECE = 1024 * 1024
"""Bytes that are checked and written, or read and checked, while the processor's cache has them."""
TAIL = 4


class Damaged(Exception):
    """The content is not what the reference says."""


class _Footer(Struct, frozen=True, array_like=True):
    payload: int
    buffers: tuple[tuple[int, bool], ...]


class Checked:
    """A sink that counts what it is given, and its CRC-32.

    Attributes:
        size, checksum: of what was written.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.size = self.checksum = 0

    def write(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        for at in range(0, len(view), PIECE):
            piece = view[at : at + PIECE]
            self.checksum = zlib.crc32(piece, self.checksum)
            self._sink.write(piece)
        self.size += len(view)

    def restart(self) -> None:
        self._sink.restart()
        self.size = self.checksum = 0


def finish(spool: Spool, sink: Sink) -> None:
    """Write what belongs behind a payload that a spool has led to `sink`."""
    for buffer in spool.buffers:
        sink.write(buffer)
    footer = msgspec.msgpack.encode(_Footer(spool.size, tuple((len(one), one.readonly) for one in spool.buffers)))
    sink.write(footer + len(footer).to_bytes(TAIL, "little"))


def check(file: BinaryIO, size: int, checksum: int) -> tuple[int, list[bytearray | memoryview]]:
    """Compare a content with what its reference says, and read its buffers.

    Args:
        file: is at the payload's beginning afterwards.

    Returns:
        The payload's size, and the buffers: what `upon.serialize.load` wants.

    Raises:
        Damaged: it is not what the reference says.
        OSError: it cannot be read.
    """
    found = file.seek(0, io.SEEK_END)
    if found != size:
        raise Damaged(f"it has {found:,} bytes and not {size:,}")
    footer = _footer(file, size)
    file.seek(0)
    sum_ = _check(file, footer.payload, 0)
    buffers: list[bytearray | memoryview] = []
    for length, readonly in footer.buffers:
        buffer, sum_ = _read(file, length, sum_)
        buffers.append(memoryview(buffer).toreadonly() if readonly else buffer)
    if _check(file, size - file.tell(), sum_) != checksum:
        raise Damaged("its checksum is not that of what was written")
    file.seek(0)
    return footer.payload, buffers


def _footer(file: BinaryIO, size: int) -> _Footer:
    length = 0
    if size > TAIL:
        file.seek(size - TAIL)
        length = int.from_bytes(file.read(TAIL), "little")
    if not 0 < length <= size - TAIL:
        raise Damaged("it does not end as it should")
    file.seek(size - TAIL - length)
    try:
        footer = msgspec.msgpack.decode(file.read(length), type=_Footer)
    except msgspec.MsgspecError as error:
        raise Damaged("it does not end as it should") from error
    lengths = [footer.payload, *(one for one, _ in footer.buffers)]
    if min(lengths) < 0 or sum(lengths) != size - TAIL - length:
        raise Damaged("its parts do not fit together")
    return footer


def _check(file: BinaryIO, length: int, checksum: int) -> int:
    piece = memoryview(bytearray(min(length, PIECE)))
    while length > 0:
        got = file.readinto(piece[:length])  # type: ignore[attr-defined]
        if not got:
            raise Damaged("it ends too early")
        checksum, length = zlib.crc32(piece[:got], checksum), length - got
    return checksum


def _read(file: BinaryIO, length: int, checksum: int) -> tuple[bytearray, int]:
    buffer = bytearray(length)
    view, at = memoryview(buffer), 0
    while at < length:
        got = file.readinto(view[at : at + PIECE])  # type: ignore[attr-defined]
        if not got:
            raise Damaged("it ends too early")
        checksum, at = zlib.crc32(view[at : at + got], checksum), at + got
    return buffer, checksum
