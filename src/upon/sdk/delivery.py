"""The thread in which results are unpickled and callbacks run: apart from I/O, which they must not delay."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Protocol

from upon.errors import UponError
from upon.messages import Result


class Waiter(Protocol):
    """Whoever waits for a result: perhaps `begin` is called, then once `resolve` or `fail`. They must not raise."""

    def begin(self) -> None: ...
    def resolve(self, result: Result) -> None: ...
    def fail(self, error: BaseException) -> None: ...


_Batch = list[tuple[Waiter, Result | UponError | None]]
"""None: it has begun."""


class Delivery:
    """Hands outcomes to those who wait for them, in the order they came, and keeps none of them."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[_Batch | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._deliver, name="upon-results", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def results(self, found: Sequence[tuple[Waiter, Result]]) -> None:
        """Deliver results; returns at once."""
        if found:
            self._arrived.put([*found])

    def begun(self, waiters: Sequence[Waiter]) -> None:
        """Tell them that their tasks have begun; returns at once."""
        if waiters:
            self._arrived.put([(waiter, None) for waiter in waiters])

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
        while self._hand_over(self._arrived.get()):
            pass  # what was handed over is referred to no more while this thread waits

    @staticmethod
    def _hand_over(arrived: _Batch | threading.Event | None) -> bool:
        """Deliver; return whether more is to come."""
        if arrived is None:
            return False
        if isinstance(arrived, threading.Event):
            arrived.set()
            return True
        arrived.reverse()
        while arrived:
            waiter, outcome = arrived.pop()
            if outcome is None:
                waiter.begin()
            elif isinstance(outcome, Result):
                waiter.resolve(outcome)
            else:
                waiter.fail(outcome)
        return True
