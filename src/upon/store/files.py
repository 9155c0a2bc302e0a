"""A store of files in one folder, on this machine's disk or on a file system that several machines share.

    store.json                 its id; made by the service (`make`), so that nobody writes where nobody frees
    <key>                      content, mode 0600
    .<key>.<8 digits>.part     content that is being written, or whose writer was killed (`list` tells of it as well)

Guarantees: content appears under its key whole, by a rename, or not at all; a key that is a path, and a file that is
a link or a device, is not opened; a disk is not filled to its last byte, for a Kafka beside us would stop.
No fsync: the record that names the content is not forced to the disk either. What a power failure takes is noticed by
size and checksum.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

import msgspec
from msgspec import Struct

from upon.errors import InputError, StoreError
from upon.machine import PRIVATE, REMEDIES
from upon.store.reference import is_key
from upon.store.store import Blob

MARK = "store.json"
RESERVE = 128 * 1024 * 1024
"""Bytes of its disk that a store leaves free: what the embedded Kafka needs to go on, and `LOOK`."""
LOOK = 64 * 1024 * 1024
"""Bytes that are written between two looks at how much is free."""
PART = ".part"
# Not every flag is there on every system: the SDK works on Windows too.
_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_BINARY"))


class _Mark(Struct, frozen=True):
    id: str
    owner: str = ""  # whose service frees it
    format: int = 1


class FileStore:
    """The store in a folder that has one already. Threads and processes may share it.

    Args:
        folder: where; `make` makes one.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, f"{socket.gethostname()}:{folder}"
        try:
            mark = msgspec.json.decode((folder / MARK).read_bytes(), type=_Mark)
        except FileNotFoundError as error:
            raise StoreError(
                f"there is no store of large arguments and results in {folder}: the service makes it when it starts; "
                "set UPON_STORE, for the service and here, to a folder that both see"
            ) from error
        except OSError as error:
            raise StoreError(f"the store in {folder} cannot be read: {_said(error)}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(f"{folder / MARK} is damaged ({error}): remove it, and start the service again") from error
        self.id, self.owner = mark.id, mark.owner

    @classmethod
    def make(cls, folder: Path, owner: str = "", adopt: bool = False) -> Self:
        """Return the store in a folder, made if there is none.

        Args:
            owner: names the system whose service frees the store; there is one.
            adopt: take it over from another one.

        Raises:
            StoreError: it cannot be made, or is another system's.
        """
        try:
            folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            if not (folder / MARK).exists():
                _write_mark(folder, _Mark(secrets.token_hex(16), owner), os.link)  # of two at once, one makes it
            store = cls(folder)
            if store.owner != owner and adopt:
                _write_mark(folder, _Mark(store.id, owner), os.replace)
        except OSError as error:
            raise StoreError(f"no store can be made in {folder}: {_said(error)}") from error
        if store.owner != owner and not adopt:
            raise StoreError(
                f"the store in {folder} is that of another system ({store.owner}; this is {owner}), which would free "
                f"what is put there: set UPON_STORE to another folder; if it is no more, remove {folder / MARK}"
            )
        return store

    def put(self, key: str) -> FilePart:
        """See `Store`."""
        return FilePart(self._path(key), self.place)

    @contextmanager
    def get(self, key: str) -> Iterator[BinaryIO]:
        """See `Store`."""
        path = self._path(key)
        try:
            descriptor = os.open(path, _READ)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.ENOENT, "is no file")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise StoreError(f"{key} in the store at {self.place} cannot be read: {_said(error)}") from error
            raise StoreError(
                f"{key} is not in the store at {self.place}: it was freed (its client has taken it, its task has "
                "succeeded or was pruned, or the store was over its bound), or somebody removed it"
            ) from error
        with os.fdopen(descriptor, "rb") as file:
            yield file

    def delete(self, key: str) -> None:
        """See `Store`. Takes also the keys of parts, as `list` gives them."""
        path = self.folder / key if _is_part(key) else self._path(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{key} in the store at {self.place} cannot be deleted: {_said(error)}") from error

    def list(self) -> Iterator[Blob]:
        """See `Store`. Parts too: what is being written, or whose writer was killed. Their names are no keys."""
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if not (is_key(entry.name) or _is_part(entry.name)):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        yield Blob(entry.name, found.st_size, found.st_mtime)
        except OSError as error:
            raise StoreError(f"the store at {self.place} cannot be listed: {_said(error)}") from error

    def _path(self, key: str) -> Path:
        if not is_key(key):
            raise InputError(f"{key[:100]!r} is no key of a store")
        return self.folder / key


class FilePart:
    """See `Part`. Args: the file that it will be; where that is, for people."""

    def __init__(self, path: Path, place: str) -> None:
        self._path, self._place, self._unseen = path, place, LOOK
        # its own for each writer: one that lost its connection may be about to remove what it wrote
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
        try:
            descriptor = os.open(self._temporary, _WRITE, 0o600)
        except OSError as error:
            raise self._cannot(error) from error
        self._file = open(descriptor, "wb", buffering=0)  # noqa: SIM115

    def write(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        try:
            while view:
                if self._unseen >= LOOK:
                    self._look()
                written = self._file.write(view[:LOOK]) or 0
                self._unseen += written
                view = view[written:]
        except OSError as error:
            raise self._cannot(error) from error

    def restart(self) -> None:
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as error:
            raise self._cannot(error) from error

    def commit(self) -> None:
        try:
            self._file.close()  # a file system over a network may say only now that there was no room
            os.rename(self._temporary, self._path)
        except OSError as error:
            self.discard()
            raise self._cannot(error) from error

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def _look(self) -> None:
        self._unseen = 0
        if shutil.disk_usage(self._path.parent).free < RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cannot(self, error: OSError) -> StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = (
                f"its disk is full (less than {RESERVE >> 20} MiB free) or your quota is used up: free some room, or "
                "set UPON_STORE to a folder on another disk"
            )
        else:
            said = _said(error)
        return StoreError(f"{self._path.name} cannot be written to the store at {self._place}: {said}")


def _write_mark(folder: Path, mark: _Mark, put: Callable[[Path, Path], object]) -> None:
    temporary = folder / f".{MARK}.{secrets.token_hex(4)}"
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(mark))
        with contextlib.suppress(FileExistsError):
            put(temporary, folder / MARK)
    finally:
        temporary.unlink(missing_ok=True)


def _is_part(name: str) -> bool:
    return name.startswith(".") and name.endswith(PART) and is_key(name[1:].rpartition(".")[0].rpartition(".")[0])


def _said(error: OSError) -> str:
    remedy = REMEDIES.get(error.errno or 0, "")
    return f"{error.strerror or error}{f' ({remedy})' if remedy else ''}"
