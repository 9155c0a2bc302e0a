"""Values to payloads and back, for both ends: small ones as they travel, large ones through the store.

    dumps   value ─▶ payload; past the limit: content in the store ─▶ a reference
    loads   payload, or reference ─▶ content ─▶ value

Without a store in reach what fits into a record travels in it, whatever the limit. Nothing here keeps a value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upon import serialize
from upon.errors import InputError, PayloadTooLarge, StoreError
from upon.messages import MAX_PAYLOAD
from upon.serialize import MAIN
from upon.spool import Spool
from upon.store import content, reference
from upon.store.files import FileStore
from upon.store.reference import MAX_PLACE, MAX_SIZE, Kind, Reference
from upon.store.store import Store


@dataclass(frozen=True, slots=True)
class Where:
    """Where the store is, None if there is none, and how many bytes of a payload travel in a record."""

    folder: Path | None
    limit: int = MAX_PAYLOAD


class Payloads:
    """Makes and reads payloads. Threads may share it, and a forked child may go on using it.

    Args:
        where: called when the first payload is made or read.
        remote: returns the store that counts, another way to it; asked at the first large payload. The folder is used
            if it is that store.
    """

    def __init__(self, where: Callable[[], Where], remote: Callable[[], Store] | None = None) -> None:
        self._where, self._remote = where, remote
        self._looked: Where | None = None
        self._opened: Store | None = None
        self._limit = -1

    def dumps(self, value: Any, task: str, kind: Kind, watched: Sequence[bytes] = ()) -> bytes:
        """Return a value's payload.

        Args:
            task: whose it is.
            watched: names of modules that the other side does not have, beside ``__main__``.

        Raises:
            PayloadTooLarge: no record holds it, and there is no store; the message says why.
            StoreError: the store takes no more.
            Exception: whatever pickling raised.
        """
        if (data := serialize.packed(value)) is not None:
            return self.led(data, task, kind)
        spool = Spool(self.limit, lambda: self._begin(task, kind), [MAIN, *watched])
        return self._made(spool, lambda spool: serialize.pickle_into(spool, value))

    def led(self, payload: bytes, task: str, kind: Kind) -> bytes:
        """Return a payload that was made in memory, as it travels. Raises as `dumps`."""
        if len(payload) <= self.limit:
            return payload
        return self._made(Spool(self.limit, lambda: self._begin(task, kind)), lambda spool: spool.write(payload))

    def loads(self, payload: bytes) -> Any:
        """Return a payload's value. Runs code that it names.

        Raises:
            InputError: it is of no known form.
            StoreError: what it refers to cannot be had; the message says which store, which key, and what to do.
            Exception: whatever unpickling raised.
        """
        if not reference.is_reference(payload):
            return serialize.loads(payload)
        found = reference.decode(payload)
        store = self._store_of(found)
        with store.get(found.key) as file:
            try:
                size, buffers = content.check(file, found.size, found.checksum)
            except content.Damaged as error:
                raise StoreError(f"{found.key} in the store at {store.place} is damaged: {error}") from error
            except OSError as error:
                said = error.strerror or error
                raise StoreError(f"{found.key} in the store at {store.place} cannot be read: {said}") from error
            return serialize.load(file, size, buffers)

    def free(self, payload: bytes, task: str) -> None:
        """Delete what a payload refers to, if it is this task's; quietly: what stays is freed by the service."""
        if not reference.is_reference(payload):
            return
        with contextlib.suppress(StoreError, InputError):
            found = reference.decode(payload)
            if reference.owner_and_kind(found.key)[0] == reference.owner_of(task):
                self._store_of(found).delete(found.key)

    def store(self) -> Store:
        """Return the store. Raises StoreError: there is none in reach."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> Store:
        if self._remote is None:
            return self._of_folder()
        try:
            remote = self._remote()
        except StoreError as silent:
            try:
                return self._of_folder()
            except StoreError as away:
                raise StoreError(f"{away}; and {silent}") from away
        try:
            local = self._of_folder()
        except StoreError:
            return remote
        return local if local.id == remote.id else remote

    def _of_folder(self) -> FileStore:
        if (folder := self._look().folder) is None:
            raise StoreError("no store of large arguments and results is named: set UPON_STORE")
        return FileStore(folder)

    @property
    def most(self) -> int:
        """Bytes of a payload at most."""
        try:
            self.store()
        except StoreError:
            return MAX_PAYLOAD
        return MAX_SIZE

    @property
    def limit(self) -> int:
        """Bytes of a payload that travel in a record."""
        if self._limit < 0:
            self._limit = min(self._look().limit, MAX_PAYLOAD)
        return self._limit

    def _look(self) -> Where:
        if self._looked is None:
            self._looked = self._where()
        return self._looked

    def _begin(self, task: str, kind: Kind) -> _Putting | None:
        try:
            return _Putting(self.store(), reference.new_key(task, kind))
        except StoreError:
            if self._opened is None:
                return None
            raise

    def _made(self, spool: Spool, make: Callable[[Spool], object]) -> bytes:
        try:
            make(spool)
            if not isinstance(spool.sink, _Putting):
                return self._inline(spool)
            content.finish(spool, spool.sink)
            return spool.sink.end()
        except BaseException:
            if isinstance(spool.sink, _Putting):
                spool.sink.discard()
            raise

    def _inline(self, spool: Spool) -> bytes:
        try:
            return spool.getvalue()
        except PayloadTooLarge as error:
            try:
                self.store()
            except StoreError as away:
                raise PayloadTooLarge(f"{error} where no store is in reach: {away}") from error
            raise

    def _store_of(self, found: Reference) -> Store:
        where = f"{found.key} ({found.size:,} bytes) lies in the store at {found.place}"
        try:
            store = self.store()
        except StoreError as error:
            raise StoreError(f"{where}, which is not in reach: {error}") from error
        if store.id != found.store and self._remote is not None:
            self._opened = None  # another one may be there since
            store = self.store()
        if store.id != found.store:
            raise StoreError(
                f"{where}, and here the store is another one, at {store.place}: set UPON_STORE, on both machines, to "
                "a folder that both see; or UPON_INLINE_LIMIT=16000000, so that only larger ones need one"
            )
        return store


class _Putting:
    """A payload that is being written to a store: a sink."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        part = store.put(key)
        self._sink = content.Checked(part)
        self.write, self.restart = self._sink.write, self._sink.restart
        self._commit, self.discard = part.commit, part.discard

    def end(self) -> bytes:
        """Put it there; return the reference."""
        self._commit()
        place = self._store.place
        shown = place if len(place) <= MAX_PLACE and place.isprintable() else ""
        return reference.encode(Reference(self._store.id, self._key, self._sink.size, self._sink.checksum, shown))
