"""What a source remembers over a restart: a dictionary of JSON values, in a SQLite database of its own.

    HOME/sources/<name>/checkpoint.db      table checkpoint (key, value: JSON), in WAL mode

Guarantees: a change is handed to the operating system before `set` or `delete` returns, so it survives a kill -9 of
the process; it is on the disk (fsync) after `flush`, and by itself about a second later, so a power cut takes at most
the last second. A change costs the same whatever the size. Threads may share a checkpoint; processes may not, and one
that tries is told; reading beside the owner (`open_for_reading`) is always possible.

Written after Kafka has an event (see `source`), a checkpoint can only lag behind: what it forgot is published again
under the same id. Nothing of it is held in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from upon.errors import SourceError

FILE = "checkpoint.db"
SYNC_AFTER = 1.0
"""Seconds until a change is on the disk without `flush`."""


class Checkpoint:
    """A durable dictionary with string keys.

    Args:
        folder: the source's own, made if it is not there.

    Raises:
        SourceError: it cannot be read or written, or another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._holder: int | None = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SourceError(
                f"checkpoint {self.path}: {error.strerror or error}; its folder must be writable"
            ) from error
        self._take_hold(self._holder)
        try:
            self._database = _opened(self.path, "rwc")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("CREATE TABLE IF NOT EXISTS checkpoint (key BLOB PRIMARY KEY, value TEXT NOT NULL)")
        except sqlite3.Error as error:
            os.close(self._holder)
            raise self._unusable(error) from error

    @classmethod
    def open_for_reading(cls, folder: Path) -> Checkpoint:
        """Return a checkpoint that only reads, while its owner may be running.

        Raises:
            SourceError: it is not there, or cannot be read.
        """
        self = cls.__new__(cls)
        self.path, self._lock, self._timer, self._closed = folder / FILE, threading.Lock(), None, False
        self._holder = None
        try:
            self._database = _opened(self.path, "ro")
            self._database.execute("SELECT 1 FROM checkpoint LIMIT 1")
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key."""
        rows = self._execute("SELECT value FROM checkpoint WHERE key = ?", _bytes(key))
        return json.loads(rows[0][0]) if rows else default

    def items(self) -> list[tuple[str, Any]]:
        """Return all keys with their values, as they are now."""
        rows = self._execute("SELECT key, value FROM checkpoint")
        return [(key.decode("utf-8", "surrogatepass"), json.loads(value)) for key, value in rows]

    def __contains__(self, key: str) -> bool:
        return bool(self._execute("SELECT 1 FROM checkpoint WHERE key = ?", _bytes(key)))

    def set(self, key: str, value: Any) -> None:
        """Set a key to a JSON value.

        Raises:
            SourceError: the file cannot be written.
        """
        self._execute("INSERT OR REPLACE INTO checkpoint VALUES (?, ?)", _bytes(key), json.dumps(value))
        self._sync_soon()

    def set_all(self, values: dict[str, Any]) -> None:
        """Set many keys in one step: all or none. Raises as `set`."""
        rows = [(_bytes(key), json.dumps(value)) for key, value in values.items()]
        with self._lock, self._telling():
            self._database.execute("BEGIN")
            try:
                self._database.executemany("INSERT OR REPLACE INTO checkpoint VALUES (?, ?)", rows)
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # a full disk has ended it already
                    self._database.execute("ROLLBACK")
                raise
        self._sync_soon()

    def delete(self, key: str) -> None:
        """Forget a key; one that is not there is no error.

        Raises:
            SourceError: the file cannot be written.
        """
        self._execute("DELETE FROM checkpoint WHERE key = ?", _bytes(key))
        self._sync_soon()

    def flush(self) -> None:
        """Return when everything is on the disk.

        Raises:
            SourceError: it cannot be written.
        """
        # In mode NORMAL a commit is not synchronised by itself; moving the log into the database synchronises both.
        self._execute("PRAGMA wal_checkpoint(FULL)")

    def close(self) -> None:
        """Write everything to the disk and let the file go. Doing it twice does no harm.

        Raises:
            SourceError: it cannot be written.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            try:
                with self._telling():
                    if self._holder is not None:
                        self._database.execute("PRAGMA wal_checkpoint(FULL)")
                    self._database.close()
            finally:
                if self._holder is not None:
                    os.close(self._holder)

    def _take_hold(self, holder: int) -> None:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(holder)
            raise SourceError(
                f"another process runs the source {self.path.parent.name!r} ({self.path.parent}): stop it, or give "
                "this one another name"
            ) from None

    def _execute(self, statement: str, *values: Any) -> list[Any]:
        with self._lock, self._telling():
            return self._database.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _telling(self) -> Any:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> SourceError:
        if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
            return SourceError(f"checkpoint {self.path}: cannot be read or written: {error}")
        return SourceError(
            f"checkpoint {self.path}: damaged ({error}). Remove it; the source then announces again what it stood for, "
            "under the same ids"
        )

    def _sync_soon(self) -> None:
        with self._lock:
            if self._timer is None and not self._closed:
                self._timer = threading.Timer(SYNC_AFTER, self._sync)
                self._timer.daemon = True
                self._timer.start()

    def _sync(self) -> None:
        # A disk that fails here fails the next `set` as well, and there somebody hears of it.
        with self._lock:
            self._timer = None
        with contextlib.suppress(SourceError):
            self.flush()


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=10, isolation_level=None, check_same_thread=False
    )


def _bytes(key: str) -> bytes:
    """A path that is no UTF-8 can be a key as well."""
    return key.encode("utf-8", "surrogatepass")
