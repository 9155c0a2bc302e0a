"""The thread in which results are unpickled and callbacks run: apart from I/O, which they must not delay."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Protocol

from upon.errors import UponError
from upon.messages import Result


class Waiter(Protocol):
    """Whoever waits for a result. One of both is called, once; they must not raise."""

    def resolve(self, result: Result) -> None: ...
    def fail(self, error: BaseException) -> None: ...


_Batch = Sequence[tuple[Waiter, Result | UponError]]


class Delivery:
    """Hands outcomes to those who wait for them, in the order they came."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[_Batch | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._deliver, name="upon-results", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def results(self, found: Sequence[tuple[Waiter, Result]]) -> None:
        """Deliver results; returns at once."""
        if found:
            self._arrived.put(found)

    def failure(self, waiters: Sequence[Waiter], error: UponError) -> None:
        """Deliver one error to all of them; returns at once."""
        if waiters:
            self._arrived.put([(waiter, error) for waiter in waiters])

    def close(self) -> None:
        """End the thread after what is there."""
        self._arrived.put(None)

    def flush(self) -> None:
        """Return when what was given before is delivered; at once in a callback, which itself is being delivered."""
        if self.is_here:
            return
        delivered = threading.Event()
        self._arrived.put(delivered)
        while self._thread.is_alive() and not delivered.wait(0.1):
            pass

    @property
    def is_here(self) -> bool:
        """Whether this is the delivering thread: a callback, which must not wait for anything of this connection."""
        return threading.current_thread() is self._thread

    def _deliver(self) -> None:
        while (batch := self._arrived.get()) is not None:
            if isinstance(batch, threading.Event):
                batch.set()
                continue
            for waiter, outcome in batch:
                if isinstance(outcome, Result):
                    waiter.resolve(outcome)
                else:
                    waiter.fail(outcome)
