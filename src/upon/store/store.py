"""What a store is: content by key, put whole or not at all. A stranger's is a class with these four methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from msgspec import Struct

from upon.spool import Sink


class Blob(Struct, frozen=True):
    """Something in a store."""

    key: str
    size: int  # bytes
    modified: float  # s since the epoch, of the store's clock


class Part(Sink, Protocol):
    """Content that is being written. Nobody sees it before `commit`."""

    def commit(self) -> None:
        """Put it there, whole; after an error nothing is there."""

    def discard(self) -> None:
        """Leave nothing of it. Raises nothing."""


class Store(Protocol):
    """Content by key. Every method raises StoreError, which names store and key and says what to do.

    Attributes:
        id: what references name: 32 hexadecimal digits, the same for all who share it.
        place: where it is, for people.
    """

    id: str
    place: str

    def put(self, key: str) -> Part:
        """Return where to write the content."""

    def get(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Return the content as a file that can seek."""

    def delete(self, key: str) -> None:
        """Delete it; quietly, if it is not there."""

    def list(self) -> Iterator[Blob]:
        """Yield what is there, in no order."""
