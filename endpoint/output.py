"""What a worker prints: its stdout and stderr go to one file without a name, read after each task.

The file is in memory where the system can do that (Linux), else in the temporary folder. The worker and its child
processes write to it through descriptors 1 and 2, so what C code and children print is caught too. The manager
holds the file as well: of a worker that was killed it reads what the task had printed until then.

The end of the output is kept, `KEPT` bytes. Whoever prints through `sys.stdout` and `sys.stderr` cuts the file back
itself; what is written past them, by C code and children, the manager cuts back while a task runs.
"""

from __future__ import annotations

import faulthandler
import fcntl
import io
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

KEPT = 64 * 1024
"""Bytes of a task's output that are kept: the last ones."""
TOO_LONG = 16 * 1024 * 1024
"""Bytes past which the file of a running task is cut back."""


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
    text = data.decode("utf-8", "replace")
    return text if size <= KEPT else f"[{size - KEPT:,} bytes before this were dropped]\n{text}"


def cut(descriptor: int, limit: int = TOO_LONG) -> bool:
    """Cut the file of a running task back to its end when it is longer than `limit` bytes; tell whether it was."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size <= limit:
        return False
    end = os.pread(descriptor, KEPT, size - KEPT)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, end)
    return True


class _Bounded(io.FileIO):
    """Descriptor 1 or 2, written without end and yet no more than `TOO_LONG` at a time."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._written = 0

    def write(self, data: Any) -> int:
        size = len(data)
        self._written += size
        if self._written > TOO_LONG:
            self._written = size = min(size, KEPT)
            if os.fstat(self.fileno()).st_ino == self.output:  # else the function has sent it to a file of its own
                cut(self.fileno(), KEPT)
                super().write(memoryview(data).cast("B")[-size:])
                return len(data)
        return super().write(data) or 0

    output = 0  # inode of the output file


class Capture:
    """A worker's own side: sends descriptors 1 and 2 of this process, and `sys.stdout`, `sys.stderr`, to the file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _Bounded.output = os.fstat(descriptor).st_ino
        self._flush: tuple[Callable[[], None], ...] = ()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        self._open()
        faulthandler.enable(file=2, all_threads=False)  # a crash says where it was, and its story has that

    def _open(self) -> None:
        self._streams = tuple(
            io.TextIOWrapper(_Bounded(number), "utf-8", "backslashreplace", line_buffering=True) for number in (1, 2)
        )
        self._flush = tuple(stream.flush for stream in self._streams)
        sys.stdout, sys.stderr = self._streams
        sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc]

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
