"""Many things in portions of about so many bytes: to send them together, or to give others their turn in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def portions(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[tuple[T, ...]]:
    """Yield items in order, in portions that end with the item that brings them to `limit` bytes.

    Args:
        size: bytes of an item.
    """
    some: list[T] = []
    total = 0
    for item in items:
        some.append(item)
        total += size(item)
        if total >= limit:
            yield tuple(some)
            some, total = [], 0
    if some:
        yield tuple(some)
