"""A payload's bytes while it is made: in memory up to a limit, behind it led elsewhere, never twice in memory.

    pickler ──▶ Spool ──up to `limit`──▶ memory
                      ──behind it─────▶ what `overflow` returns; large buffers stay where they are (`buffers`)

Not here: what the bytes mean (`upon.serialize`), where they are led (`upon.store`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pickle import PickleBuffer
from typing import Protocol

from upon.errors import PayloadTooLarge
from upon.messages import MAX_PAYLOAD

_OPCODES = 256 * 1024
"""Bytes: the pickler writes objects of 64 KiB and more apart, and all else in pieces of less than twice that."""


class Sink(Protocol):
    """Where bytes are led that are too many for memory."""

    def write(self, data: bytes | memoryview, /) -> object: ...

    def restart(self) -> None:
        """Forget what was written."""


class Spool:
    """Takes what a pickler writes.

    Args:
        limit: bytes that stay in memory, at most; a buffer (of an array) of so many goes out of band.
        overflow: called once there are more; returns where they go. None, or if it returns None: up to `MAX_PAYLOAD`
            bytes stay in memory, and further ones are only counted.
        watched: names, such as those of modules; see `seen`.
        most: in place of `MAX_PAYLOAD`.

    Attributes:
        size: bytes that were written.
        sink: where it is led; None: all is in memory.
        buffers: those that went out of band, in order.
        seen: one of the watched names was written.
    """

    def __init__(
        self,
        limit: int = MAX_PAYLOAD,
        overflow: Callable[[], Sink | None] | None = None,
        watched: Sequence[bytes] = (),
        most: int = MAX_PAYLOAD,
    ) -> None:
        self._limit, self._overflow, self._watched, self._most = min(limit, most), overflow, watched, most
        self.sink: Sink | None = None
        self.begin(b"")

    def begin(self, method: bytes) -> None:
        """Begin (again) with a payload whose first byte is `method`."""
        self._parts: list[bytes] = [method]
        self.size, self.seen = len(method), False
        self.buffers: list[memoryview] = []
        if self.sink is not None:
            self.sink.restart()
            self._empty(self.sink)

    def write(self, data: bytes | PickleBuffer) -> int:
        """Take some bytes, as a file would."""
        piece = data.raw() if isinstance(data, PickleBuffer) else data
        if len(piece) < _OPCODES and not self.seen and isinstance(piece, bytes):
            self.seen = any(name in piece for name in self._watched)
        self.size += len(piece)
        if self.sink is not None or (self.size > self._limit and self._is_led()):
            self.sink.write(piece)  # type: ignore[union-attr]
        elif self.size <= self._most:
            self._parts.append(bytes(piece))
        else:
            self._parts.clear()
        return len(piece)

    def take(self, buffer: PickleBuffer) -> bool:
        """Decide over a buffer (the pickler's `buffer_callback`): False: it goes out of band."""
        view = buffer.raw()
        if len(view) < self._limit or not self._is_led():
            return True
        self.buffers.append(view)
        return False

    def getvalue(self) -> bytes:
        """Return the payload, if all of it stayed in memory.

        Raises:
            PayloadTooLarge: it has more bytes than may be.
        """
        if self.size > self._most:
            raise PayloadTooLarge(f"{self.size:,} bytes serialized, the limit is {self._most:,}")
        return b"".join(self._parts)

    def _is_led(self) -> bool:
        if self.sink is None and self._overflow is not None:
            self.sink, self._overflow = self._overflow(), None
            if self.sink is not None:
                self._empty(self.sink)
        return self.sink is not None

    def _empty(self, sink: Sink) -> None:
        for part in self._parts:
            sink.write(part)
        self._parts.clear()
