"""What a source remembers over a restart: a small dictionary of JSON values, in one file.

    HOME/sources/<name>/checkpoint.jsonl      {"k": key, "v": value} set · {"k": key} deleted; one a line

Guarantees: a change is handed to the operating system before `set` or `delete` returns, so it survives a kill -9 of
the process; it is on the disk (fsync) after `flush`, and by itself about a second later, so a power cut takes at most
the last second. A line that a crash cut short is ignored. The file is rewritten, and replaced in one step, when it
has grown to several times its content. Threads may share a checkpoint; processes may not, and one that tries is told.

Written after Kafka has an event (see `source`), a checkpoint can only lag behind: what it forgot is published again
under the same id. Not here: many millions of keys; all of it is in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from upon.errors import SourceError

SYNC_AFTER = 1.0
"""Seconds until a change is on the disk without `flush`."""
GROWTH = 4
"""The file is rewritten when it has so many times more lines than there are keys …"""
LEAST_LINES = 1000
"""… and at least these."""


class Checkpoint:
    """A durable dictionary with string keys.

    Args:
        folder: the source's own, made if it is not there.

    Raises:
        SourceError: it cannot be read or written, or another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checkpoint.jsonl"
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._values: dict[str, Any] = {}
        self._lines = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._holder = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take_hold()
            self._file = self._opened()
        except OSError as error:
            raise SourceError(
                f"checkpoint {self.path}: {error.strerror or error}; its folder must be writable"
            ) from error

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key."""
        with self._lock:
            return self._values.get(key, default)

    def items(self) -> list[tuple[str, Any]]:
        """Return all keys with their values, as they are now."""
        with self._lock:
            return list(self._values.items())

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def set(self, key: str, value: Any) -> None:
        """Set a key to a JSON value.

        Raises:
            SourceError: the file cannot be written.
        """
        with self._lock:
            self._values[key] = value
            self._write({"k": key, "v": value})

    def delete(self, key: str) -> None:
        """Forget a key; one that is not there is no error.

        Raises:
            SourceError: the file cannot be written.
        """
        with self._lock:
            if key in self._values:
                del self._values[key]
                self._write({"k": key})

    def flush(self) -> None:
        """Return when everything is on the disk.

        Raises:
            SourceError: it cannot be written.
        """
        with self._lock:
            self._sync()

    def close(self) -> None:
        """Write everything to the disk and let the file go. Doing it twice does no harm."""
        with self._lock:
            if self._file.closed:
                return
            try:
                self._sync()
            finally:
                self._file.close()
                os.close(self._holder)

    def _take_hold(self) -> None:
        try:
            fcntl.flock(self._holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._holder)
            raise SourceError(
                f"another process runs the source {self.path.parent.name!r} ({self.path.parent}): stop it, or give "
                "this one another name"
            ) from None

    def _opened(self) -> Any:
        """Read the file, and open it for appending after its last whole line."""
        whole = 0
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                self._apply(line)
        file_out = self.path.open("ab")
        if file_out.tell() > whole:
            file_out.truncate(whole)
        return file_out

    def _apply(self, line: bytes) -> None:
        self._lines += 1
        try:
            record = json.loads(line)
            key = record["k"]
        except (ValueError, TypeError, KeyError) as error:
            raise SourceError(
                f"checkpoint {self.path}, line {self._lines}: damaged ({error}). Remove that line; the source "
                "then repeats what it stood for, under the same ids"
            ) from error
        if "v" in record:
            self._values[key] = record["v"]
        else:
            self._values.pop(key, None)

    def _write(self, record: dict[str, Any]) -> None:
        try:
            self._file.write(_line(record))
            self._file.flush()
            self._lines += 1
            if self._lines >= LEAST_LINES and self._lines > GROWTH * len(self._values):
                self._rewrite()
        except (OSError, ValueError) as error:
            raise SourceError(f"checkpoint {self.path} cannot be written: {error}") from error
        if self._timer is None:
            self._timer = threading.Timer(SYNC_AFTER, self._sync_later)
            self._timer.daemon = True
            self._timer.start()

    def _rewrite(self) -> None:
        temporary = self.path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.writelines(self._all_lines())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        self._file.close()
        self._file = self.path.open("ab")
        self._lines = len(self._values)
        _sync_folder(self.path.parent)

    def _all_lines(self) -> Iterator[bytes]:
        return (_line({"k": key, "v": value}) for key, value in self._values.items())

    def _sync_later(self) -> None:
        # A disk that fails here fails the next `set` as well, and there somebody hears of it.
        with self._lock, contextlib.suppress(SourceError):
            self._sync()

    def _sync(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._file.closed:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SourceError(f"checkpoint {self.path} cannot be written: {error.strerror}") from error


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
