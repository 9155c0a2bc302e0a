"""A map: items cut into chunks, one invocation each, and their results in order.

    items ── cut ──▶ chunk ── send ──▶ under way ──▶ done ──▶ values, in order
               ▲                          │ how long it took, how many bytes
               └──────── Sizes ◀──────────┘

With a chunk size of the user's and no buffer size all leaves at once. Else chunks are cut as others come back:
- without a buffer size the items are collected first, as `concurrent.futures` does, and each chunk that is done has the
  next one sent: nobody has to ask for values.
- with one, the items are consumed by whoever asks for values, at most so many ahead of what he has: the iterable may
  be endless.
Pure: `Sizes`. Not here: what a chunk is made into (`send` is given).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any

from upon.errors import InputError, ServiceError, StoreError
from upon.sdk.outcome import Chunk

Columns = list[list[Any]]
"""Of a chunk: one column for each iterable, all of one length."""

WORK = 0.2
"""Seconds of work that a chunk is to be."""
LEAST = 0.02
"""Seconds of work below which no chunk goes so that all workers have one at the end."""
BYTES = 1024 * 1024
"""Bytes of arguments, or of values, that a chunk is to have at most, if it has several items."""
GROWTH = 32
"""How much larger than the largest before a chunk may be: what was seen so far may be no measure."""
MEMORY = 0.7
"""How much what was seen before counts, against the newest chunk."""


class Sizes:
    """Chooses how many items the next chunk has, from what those before it took.

    Args:
        workers: how many could have one at a time.
        work: s of work that a chunk is to be.
    """

    def __init__(self, workers: int, work: float = WORK) -> None:
        self.workers, self._work = workers, work
        self._items = self._seconds = self._bytes = 0.0
        self._largest = 0

    def saw(self, items: int, seconds: float, bytes: int) -> None:
        """Take in that a chunk of so many items took so long, and that its arguments or values had so many bytes."""
        self._items = MEMORY * self._items + items
        self._seconds = MEMORY * self._seconds + max(0.0, seconds)
        self._bytes = MEMORY * self._bytes + bytes
        self._largest = max(self._largest, items)

    def next(self, left: int | None) -> int:
        """Return how many items the next chunk has.

        Args:
            left: how many there are still; None: unknown.
        """
        if not self._items:
            return 1
        each, weight = self._seconds / self._items, self._bytes / self._items
        size = min(self._work / max(each, 1e-9), BYTES / max(weight, 1e-9), self._largest * GROWTH)
        if left is not None:
            size = min(size, max(left / (2 * self.workers), LEAST / max(each, 1e-9)))
        return max(1, int(size))


class Rows:
    """The items of a map, to be cut off from the front.

    Args:
        iterables: as many items as the shortest has.
        collected: consume them now.
    """

    def __init__(self, iterables: tuple[Iterable[Any], ...], *, collected: bool) -> None:
        self._single = len(iterables) == 1
        rows = iterables[0] if self._single else zip(*iterables, strict=False)
        self.left: int | None = None  # unknown
        if collected:
            rows = list(rows)
            self.left = len(rows)
        self._rows = iter(rows)

    def cut(self, size: int) -> Columns | None:
        """Return up to `size` items as columns, None at the end. Of one iterable nothing is made per item."""
        some = list(islice(self._rows, size))
        if self.left is not None:
            self.left -= len(some)
        if not some:
            return None
        return [some] if self._single else [list(column) for column in zip(*some, strict=True)]


Send = Callable[[Columns], tuple[Future[Any], int]]
"""Has a chunk run; returns its future, which resolves to a `Chunk`, and the bytes of its arguments."""


class Map:
    """One map under way.

    Args:
        rows: the items.
        send: see `Send`.
        size: items of each chunk; None: as `sizes` says.
        sizes: what sizes follow from.
        ahead: items that are consumed and whose values nobody has yet, at most; None: not bounded.
    """

    def __init__(self, rows: Rows, send: Send, sizes: Sizes, *, size: int | None, ahead: int | None) -> None:
        self._rows, self._send, self._sizes, self._size, self._ahead = rows, send, sizes, size, ahead
        self._by_itself = ahead is None
        self._at_once = ahead is None and size is not None
        self._window = 2 * sizes.workers + 1
        self._sent: deque[tuple[Future[Any], int]] = deque()
        self._held = 0  # items consumed whose values nobody has yet
        self._under_way = 0  # chunks
        self._feeding, self._is_feeding = threading.RLock(), False
        self._changed = threading.Condition()
        self._pid = os.getpid()
        self.is_fed = False  # all is sent, or nothing more is to be

    @property
    def goes_on(self) -> bool:
        """Whether it has something to send by itself, when others come back."""
        return self._by_itself and not self._at_once and not self.is_fed

    def feed(self) -> None:
        """Send as many chunks as may be under way.

        Raises:
            Exception: what sending raised, if somebody waits for it; else it is raised at the place of the values.
        """
        with self._feeding:
            if self._is_feeding:  # called from below, for a chunk that was done at once
                return
            self._is_feeding = True
            try:
                while not self.is_fed and (self._at_once or self._has_room()):
                    self._feed_one(self._size or self._sizes.next(self._rows.left))
            finally:
                self._is_feeding = False

    def flush(self) -> None:
        """Send all that is collected: nobody will be here to send it later."""
        with self._feeding:
            while not self.is_fed and (left := self._rows.left):
                self._feed_one(max(self._sizes.next(left), left // (8 * self._sizes.workers)))

    def drop(self) -> None:
        """Send nothing more; whoever asks for the values that are missing gets CancelledError."""
        with self._feeding:
            if not self.is_fed:
                never: Future[Any] = Future()
                never.cancel()
                self._sent.append((never, self._rows.left or 1))
            self.is_fed = True

    def chunks(self, deadline: float | None) -> Iterator[Iterable[Any]]:
        """Yield the values of each chunk, in order, as something to iterate over once.

        A bad item raises its exception at its position; the next one may be asked for after that. Dropped before its
        end, it cancels what is left.

        Args:
            deadline: monotonic s by which the last value must be there; None: no limit.

        Raises:
            TimeoutError: at the first value that is not there in time.
            ServiceError: in a forked child, for the values arrive at its parent.
        """
        try:
            while (found := self._next(deadline)) is not None:
                future, items = found
                error = future.exception()
                chunk: Chunk | None = None if error is not None else future.result()
                del future, found
                if error is not None:
                    yield _Failed(error, items)
                else:
                    assert chunk is not None
                    values = chunk.items()
                    del chunk
                    yield values
                    del values
                self._held -= items
        finally:
            if self._pid == os.getpid():
                with self._feeding:
                    self.is_fed = True
                    left = list(self._sent)
                for future, _ in left:
                    future.cancel()

    def _next(self, deadline: float | None) -> tuple[Future[Any], int] | None:
        """Return the next chunk in order when it is done; meanwhile send others, if that is ours to do."""
        if self._pid != os.getpid():
            raise ServiceError("the values of this map arrive in the process from which this one was forked: map here")
        while True:
            if not self._by_itself:
                self.feed()
            with self._feeding:
                if not self._sent:
                    return None
                future, items = self._sent[0]
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._by_itself or self.is_fed:
                future.exception(left)
            else:
                self._wait(future, left)
            if future.done():
                with self._feeding:
                    self._sent.popleft()
                return future, items

    def _wait(self, future: Future[Any], left: float | None) -> None:
        """Return when this chunk is done, or another one, whose place a further one may take."""
        with self._changed:
            before = self._under_way
            if not self._changed.wait_for(lambda: future.done() or self._under_way < before, left):
                raise TimeoutError

    def _has_room(self) -> bool:
        return self._under_way < self._window and (self._ahead is None or self._held < self._ahead)

    def _feed_one(self, size: int) -> None:
        if self._ahead is not None:
            share = self._ahead if self._size else max(1, self._ahead // self._window)
            size = min(size, share, self._ahead - self._held)
        columns = self._rows.cut(size)
        if columns is None:
            self.is_fed = True
            return
        self._held += len(columns[0])
        self._put(columns)

    def _put(self, columns: Columns) -> None:
        items = len(columns[0])
        try:
            future, size = self._send(columns)
        except Exception as error:
            if self._size is not None:
                raise
            if isinstance(error, InputError | StoreError) and items > 1:  # one of them is to blame
                self._put([column[: items // 2] for column in columns])
                self._put([column[items // 2 :] for column in columns])
                return
            if not isinstance(error, InputError | StoreError):  # it would be the same for all
                items += self._rows.left or 0
                self.is_fed = True
            failed: Future[Any] = Future()
            failed.set_exception(error)
            self._sent.append((failed, items))
            return
        self._sent.append((future, items))
        if not self._at_once:
            with self._changed:
                self._under_way += 1
            future.add_done_callback(partial(self._one_done, items, size))

    def _one_done(self, items: int, size: int, future: Future[Any]) -> None:
        with self._changed:
            self._under_way -= 1
            if not future.cancelled() and future.exception() is None:
                chunk: Chunk = future.result()
                self._sizes.saw(items, chunk.seconds, max(size, chunk.size))
            self._changed.notify_all()
        if self._by_itself and not self.is_fed:
            self.feed()


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
