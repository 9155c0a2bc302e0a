"""A map: iterables cut into chunks, one invocation each, and their results in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Any

from upon.sdk.outcome import Chunk


def chunks(iterables: tuple[Iterable[Any], ...], size: int) -> Iterator[list[list[Any]]]:
    """Cut iterables into chunks of `size` items: one column per iterable, all as long as the shortest.

    One iterable is one column; nothing is made per item.
    """
    if len(iterables) == 1:
        only = iter(iterables[0])
        while column := list(islice(only, size)):
            yield [column]
        return
    rows = zip(*iterables, strict=False)
    while some := list(islice(rows, size)):
        yield [list(column) for column in zip(*some, strict=True)]


def results(futures: list[tuple[Future[Any], int]], timeout: float | None) -> Iterator[Iterable[Any]]:
    """Return the values of all chunks in order, those of each as something to iterate over once.

    A bad item raises its exception at its position; the iterator can be asked for the next item after that. When it
    is dropped before its end, the chunks that are left are cancelled.

    Args:
        futures: each chunk's future, which resolves to a `Chunk`, and its number of items.
        timeout: seconds from now until the last value must be there; None: no limit.

    Raises:
        TimeoutError: from the iterator, at the first value that is not there in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    return _in_order(futures, deadline)


def _in_order(futures: list[tuple[Future[Any], int]], deadline: float | None) -> Iterator[Iterable[Any]]:
    futures.reverse()
    try:
        while futures:
            future, items = futures.pop()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                error = future.exception(left)
            except BaseException:
                future.cancel()
                raise
            if error is not None:
                yield _Failed(error, items)
            else:
                chunk: Chunk = future.result()
                del future
                yield chunk.items()
    finally:
        for future, _ in futures:
            future.cancel()


class _Failed:
    """Iterates over a chunk that failed as a whole: each of its items raises."""

    def __init__(self, error: BaseException, items: int) -> None:
        self._error, self._left = error, items

    def __iter__(self) -> _Failed:
        return self

    def __next__(self) -> Any:
        if not self._left:
            raise StopIteration
        self._left -= 1
        raise self._error
