"""What a worker prints: its stdout and stderr go to one file without a name, read after each task.

The file is in memory where the system can do that (Linux), else in the temporary folder. The worker and its child
processes write to it through descriptors 1 and 2, so what C code and children print is caught too. The manager
holds the file as well: of a worker that was killed it reads what the task had printed until then.

The end of the output is kept, `KEPT` bytes. Whoever prints through `sys.stdout` and `sys.stderr` cuts the file back
itself; what is written past them, by C code and children, the manager cuts back while a task runs. To cut it back is
to punch a hole into its beginning (on Linux): a byte has one place in a task's output, however much of it is gone, and
nothing that is written meanwhile is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import io
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any

from upon.printed import with_dropped

KEPT = 64 * 1024
"""Bytes of a task's output that are kept: the last ones."""
TOO_LONG = 16 * 1024 * 1024
"""Bytes past which the file of a running task is cut back."""
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_UNBUFFERED = 2
_BLOCK = 512
"""Bytes: what `stat` counts in."""


def new_output() -> int:
    """Return the descriptor of a new output file; all writes append."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("upon-output", os.MFD_CLOEXEC)
    else:
        descriptor, name = tempfile.mkstemp(prefix="upon-output-")
        os.unlink(name)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    return descriptor


def take(descriptor: int) -> str:
    """Return the end of what was printed since the last call, and empty the file."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size == 0:
        return ""
    data = os.pread(descriptor, KEPT, max(0, size - KEPT))
    os.ftruncate(descriptor, 0)
    return with_dropped(data.decode("utf-8", "replace"), max(0, size - KEPT))


def cut(descriptor: int, limit: int = TOO_LONG) -> bool:
    """Cut the file of a running task back to its end when it takes more than `limit` bytes; tell whether it did."""
    found = os.fstat(descriptor)
    size = found.st_size
    if size <= limit or found.st_blocks * _BLOCK <= limit:
        return False
    if not _punch(descriptor, size - KEPT):
        end = os.pread(descriptor, KEPT, size - KEPT)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, end)
    return True


def look(descriptor: int, since: int, most: int) -> tuple[int, bytes] | None:
    """Return what a running task has printed, and where that begins in all that it has; None: nothing new.

    Args:
        since: bytes of it that are known already.
        most: bytes at most, up to half of `KEPT`; the newest.
    """
    size = os.fstat(descriptor).st_size
    if size in (0, since):
        return None
    if size < since:  # it was cut back where no hole can be punched: places are counted anew
        since = 0
    start = max(since, size - most)
    data = os.pread(descriptor, size - start, start)
    if os.fstat(descriptor).st_size - start > KEPT:  # it grows so fast that this may have been a hole already
        return None
    return start, data


def _punch(descriptor: int, end: int) -> bool:
    """Give back what a file has before `end`, which keeps its size; tell whether this system can do that."""
    fallocate = _fallocate()
    return fallocate is not None and fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, 0, end) == 0


@cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return function  # type: ignore[no-any-return]


class _Bounded(io.FileIO):
    """Descriptor 1 or 2, written without end and yet no more than `TOO_LONG` at a time."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._written = 0

    def write(self, data: Any) -> int:
        size = len(data)
        self._written += size
        if self._written > TOO_LONG:
            self._written = min(size, KEPT)
            number = self.fileno()
            if os.fstat(number).st_ino == self.output:  # else the function has sent it to a file of its own
                cut(number, KEPT)
                if size > TOO_LONG:
                    os.ftruncate(number, os.fstat(number).st_size + size - KEPT)
                    super().write(memoryview(data).cast("B")[-KEPT:])
                    return size
        return super().write(data) or 0

    output = 0  # inode of the output file


def _unbuffer() -> None:
    """Have what C code prints be written at once: in its buffer it would wait for another task, or for nobody."""
    with contextlib.suppress(AttributeError, ValueError):  # another C library
        library = ctypes.CDLL(None)
        stdout = ctypes.c_void_p.in_dll(library, "stdout")
        library.setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t)
        library.setvbuf(stdout, None, _UNBUFFERED, 0)


def _settings(stream: io.TextIOWrapper) -> tuple[object, ...]:
    """Return how a stream is set, and what a function has put over its methods."""
    how = (stream.encoding, stream.errors, stream.line_buffering, stream.write_through)
    return *how, dict(vars(stream)), set(vars(stream.buffer))


class Capture:
    """A worker's own side: sends descriptors 1 and 2 of this process, and `sys.stdout`, `sys.stderr`, to the file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _Bounded.output = os.fstat(descriptor).st_ino
        self._flush: tuple[Callable[[], None], ...] = ()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        _unbuffer()
        self._open()
        faulthandler.enable(file=2, all_threads=False)  # a crash says where it was, and its story has that

    def _open(self) -> None:
        self._streams = tuple(
            io.TextIOWrapper(_Bounded(number), "utf-8", "backslashreplace", line_buffering=True) for number in (1, 2)
        )
        self._flush = tuple(stream.flush for stream in self._streams)
        self._settings = tuple(map(_settings, self._streams))
        sys.stdout, sys.stderr = self._streams
        sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc]

    def restore(self) -> bool:
        """Put back how the streams are set and what they do; tell whether a function had changed that."""
        try:
            same = (getattr(sys, "__stdout__", None), getattr(sys, "__stderr__", None)) == self._streams
            if same and tuple(map(_settings, self._streams)) == self._settings:
                return False
            for flush in self._flush:
                flush()
        except (ValueError, OSError):  # closed, or detached
            pass
        self._open()
        return True

    def take(self) -> str:
        """Return what was printed since the last call (its end), and restore what a function replaced or closed.

        Raises:
            OSError: the file itself was closed.
        """
        sys.stdout, sys.stderr = self._streams
        try:
            for flush in self._flush:
                flush()
        except (ValueError, OSError):  # it was closed, detached, or its descriptor was
            self._open()
        return take(self._descriptor)
