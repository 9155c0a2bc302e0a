"""The one thread of a process that does the SDK's I/O, and the way into it from the user's threads.

Guarantees: started at first use; a daemon, so it never keeps the interpreter alive; at exit what was submitted is
still handed to the service, for at most `EXIT_GRACE` seconds. After a fork the child starts its own.
Not here: user code. Results are unpickled and callbacks run in other threads (`connection`), so that a slow
callback delays no other I/O.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_GRACE = 5.0
"""Seconds that the interpreter's exit waits for what is submitted and not yet accepted by the service."""


class Background:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.at_exit: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        self._thread = threading.Thread(target=self._serve, name="upon-io", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine in the loop and wait for it; an interrupt cancels it.

        Args:
            work: the coroutine.
            timeout: seconds, default without end.

        Raises:
            TimeoutError: it took longer.
            RuntimeError: called from the I/O thread itself, which would wait for itself.
            Exception: whatever the coroutine raised.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a blocking call inside the SDK's own thread")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def post(self, callback: Callable[[], object]) -> None:
        """Have the loop call `callback` soon. Costs about 5 µs; from any thread."""
        self.loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """Let everyone finish (each takes at most `EXIT_GRACE`), then stop the thread."""

        async def finish() -> None:
            await asyncio.gather(*(work() for work in list(self.at_exit)), return_exceptions=True)

        with contextlib.suppress(TimeoutError):
            self.run(finish(), EXIT_GRACE + 2.0)
        self.post(self.loop.stop)
        self._thread.join(1.0)


_lock = threading.Lock()
_background: Background | None = None


def background() -> Background:
    """Return this process's background thread, started if it is not running."""
    global _background  # noqa: PLW0603
    if _background is None:
        with _lock:
            if _background is None:
                _background = Background()
    return _background


def _forget() -> None:
    global _background, _lock
    _background, _lock = None, threading.Lock()


def _close() -> None:
    if _background is not None:
        _background.close()


os.register_at_fork(after_in_child=_forget)
atexit.register(_close)
