"""The log of a running part: appended to by the supervisor, moved to NAME.log.1 when it is long, while the part runs.

    a part's stdout and stderr ─pipe─▶ `LogFile.read` ─▶ NAME.log ──`LARGEST`──▶ NAME.log.1

Guarantees: no line is lost or cut in two by a move; a part and its log take twice `LARGEST` bytes on disk at most. A
disk that is full stops nobody: what could not be written is counted, and the count is written when there is room.
A reader that follows the log sees that NAME.log is another file (its inode), reads the old one to its end and goes on.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LARGEST = 10 * 1024 * 1024
"""Bytes past which a log is moved aside."""
CHUNK = 64 * 1024
"""Bytes read at a time."""
END = 20_000
"""Bytes at the end of a log in which is looked for why its part ended."""
AT_ONCE = 16
"""Chunks read before others have their turn."""


class LogFile:
    """One part's log.

    Args:
        path: the file; it is appended to.
        largest: bytes past which it is moved to ``PATH.1``.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self._path, self._largest = path, largest
        self._lost = 0  # bytes that could not be written
        self._descriptor = -1
        self._open()

    def _open(self) -> None:
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = opened
        self._size = os.fstat(opened).st_size
        self._in_line = False

    def write(self, data: bytes) -> None:
        """Append what a part said; never raises."""
        while data:
            if self._size >= self._largest and not self._in_line:
                self._move()
            end = len(data)
            if self._size + end > self._largest:  # up to the end of a line, behind which it may be moved
                after = data.find(b"\n", max(0, self._largest - self._size - 1)) + 1
                end = after or end
            self._append(data[:end])
            data = data[end:]

    def _append(self, data: bytes) -> None:
        if self._lost:
            note = b'{"event": "%d bytes of this log were not written: no room", "action": "log"}\n' % self._lost
            if self._put(note if not self._in_line else b"\n" + note):
                self._lost += len(data)
                return
            self._lost, self._in_line = 0, False
        left = self._put(data)
        self._lost += left
        if left < len(data):
            self._in_line = bool(left) or not data.endswith(b"\n")

    def _put(self, data: bytes) -> int:
        """Write; return how many bytes were not."""
        left = memoryview(data)
        with contextlib.suppress(OSError):
            while left:
                written = os.write(self._descriptor, left)
                self._size += written
                left = left[written:]
        return len(left)

    def _move(self) -> None:
        with contextlib.suppress(OSError):
            os.replace(self._path, f"{self._path}.1")
        try:
            self._open()
        except OSError:  # on in the old one
            self._size = 0

    def read(self, pipe: int) -> bool:
        """Take what a part has said into a pipe (that does not block) until now; False at its end."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(AT_ONCE):
                data = os.read(pipe, CHUNK)
                if not data:
                    return False
                self.write(data)
        return True

    def close(self) -> None:
        os.close(self._descriptor)


def size(path: Path) -> int:
    """Return how long a log is, bytes; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def end(path: Path, begin: int) -> str:
    """Return the end of what stands in a log from `begin` on (bytes), at most `END` of it; empty if there is none.

    A log that is shorter than that was begun anew: all of it counts.
    """
    there = size(path)
    try:
        with path.open("rb") as log:
            log.seek(max(begin if begin <= there else 0, there - END))
            return log.read().decode(errors="replace")
    except OSError:
        return ""
