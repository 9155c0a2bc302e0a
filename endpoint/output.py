"""What a worker prints: its stdout and stderr go to one file without a name, read after each task.

The file is in memory where the system can do that (Linux), else in the temporary folder. The worker and its child
processes write to it through descriptors 1 and 2, so what C code and children print is caught too. The manager
holds the file as well: of a worker that was killed it reads what the task had printed until then, and it cuts the
file back when a task prints without end. The end of the output is kept, `KEPT` bytes.
"""

from __future__ import annotations

import faulthandler
import fcntl
import io
import os
import sys
import tempfile

KEPT = 64 * 1024
"""Bytes of a task's output that are kept: the last ones."""
TOO_LONG = 16 * 1024 * 1024
"""Bytes past which the manager cuts the file of a running task back."""


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


def cut(descriptor: int) -> bool:
    """Cut the file of a running task back to its end when it is too long; tell whether it was."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size <= TOO_LONG:
        return False
    end = os.pread(descriptor, KEPT, size - KEPT)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, end)
    return True


class Capture:
    """A worker's own side: sends descriptors 1 and 2 of this process, and `sys.stdout`, `sys.stderr`, to the file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        self._streams = tuple(
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True)
            for number in (1, 2)
        )
        self._flush = tuple(stream.flush for stream in self._streams)
        faulthandler.enable(file=2, all_threads=False)  # a crash says where it was, and its story has that
        sys.stdout, sys.stderr = self._streams
        sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc]

    def take(self) -> str:
        """Return what was printed since the last call (its end), and restore what a function replaced."""
        sys.stdout, sys.stderr = self._streams
        for flush in self._flush:
            flush()
        return take(self._descriptor)
