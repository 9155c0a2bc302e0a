"""The store through the service, for a client that does not see its folder.

Content is made and read in a file without a name in this machine's temporary folder (`TMPDIR`), and streamed from and
to there: no process holds it. As a `Store` it cannot be listed: who frees it has the folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, NoReturn

from upon.api import StoreUse, Submitted
from upon.errors import ServiceError, StoreError
from upon.sdk.rest import Rest, path
from upon.store.store import Blob


class RemoteStore:
    """The store of a service.

    Raises:
        StoreError: the service has none, or cannot be asked.
    """

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        try:
            use = rest.ask("GET", path("payloads"), StoreUse)
        except ServiceError as error:
            raise StoreError(f"the service cannot say which store there is: {error}") from error
        self.id, self.place = use.id, f"{use.place} (through the service)"

    def put(self, key: str) -> RemotePart:
        """See `Store`."""
        return RemotePart(self, key)

    @contextmanager
    def get(self, key: str) -> Iterator[BinaryIO]:
        """See `Store`."""
        with tempfile.TemporaryFile() as file:
            try:
                self._rest.download(path("payloads", key), file)
                file.seek(0)
            except (ServiceError, OSError) as error:
                raise self._failed(f"{key} cannot be had from", error) from error
            yield file  # type: ignore[misc]

    def delete(self, key: str) -> None:
        """See `Store`."""
        try:
            self._rest.ask("DELETE", path("payloads", key), Submitted)
        except ServiceError as error:
            raise self._failed(f"{key} cannot be deleted in", error) from error

    def list(self) -> Iterator[Blob]:
        """See `Store`; not to be had. Raises StoreError."""
        raise StoreError(f"the store at {self.place} is listed by its service alone")

    def send(self, key: str, file: IO[bytes]) -> None:
        """Put what is in a file. Raises StoreError."""
        try:
            file.seek(0)
            self._rest.upload(path("payloads", key), file)
        except (ServiceError, OSError) as error:
            raise self._failed(f"{key} cannot be put into", error) from error

    def _failed(self, what: str, error: Exception) -> StoreError:
        return StoreError(f"{what} the store at {self.place}: {error}")


class RemotePart:
    """See `upon.store.store.Part`."""

    def __init__(self, store: RemoteStore, key: str) -> None:
        self._store, self._key = store, key
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `discard`

    def write(self, data: bytes | memoryview, /) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self._full(error)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    def commit(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self._full(error)
        try:
            self._store.send(self._key, self._file)
        finally:
            self.discard()

    def discard(self) -> None:
        self._file.close()

    def _full(self, error: OSError) -> NoReturn:
        raise StoreError(
            f"{self._key} cannot be written on its way to the store at {self._store.place}: {error.strerror} in "
            f"{tempfile.gettempdir()}; set TMPDIR to a folder with room"
        ) from error
