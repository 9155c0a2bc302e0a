"""The future of a task: a `concurrent.futures.Future` whose work is elsewhere.

Its states follow the site: pending, running once the site says so, then done or cancelled. It is resolved by a
connection, in the thread that runs callbacks. It refers to neither function nor arguments.

After a fork it is the parent's, for its result arrives there: in the child whoever would wait for it gets a
ServiceError in place of waiting for ever. One that was done at the fork is done in both.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator
from concurrent import futures
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar

from upon.errors import ServiceError, TaskCancelled
from upon.locks import lock
from upon.messages import Result
from upon.sdk.outcome import error_of, value_of
from upon.store.reference import is_reference

if TYPE_CHECKING:
    from upon.sdk.connection import Connection

T = TypeVar("T")


_lock = lock()
"""Of all futures of this process: each is held for a few µs. With a lock and a queue of waiters of its own, a future
takes 1 kB and eight objects for the garbage collector to look at more."""


class _Condition:
    """What `concurrent.futures` uses of a `threading.Condition`; it has a queue once somebody waits."""

    __slots__ = ("_queue",)

    acquire, release = staticmethod(_lock.acquire), staticmethod(_lock.release)

    def __init__(self) -> None:
        self._queue: threading.Condition | None = None

    def __enter__(self) -> None:
        _lock.acquire()

    def __exit__(self, *_: object) -> None:
        _lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        if self._queue is None:
            self._queue = threading.Condition(_lock)
        return self._queue.wait(timeout)

    def notify_all(self) -> None:
        if self._queue is not None:
            self._queue.notify_all()


class TaskFuture(futures.Future[T]):
    """The future of a task.

    Args:
        task: its id.
        connection: resolves it.
        arguments: the payload that was sent, by who alone wants the result: what of it is in a store is deleted there
            when it is here, with the arguments of a task that has succeeded. None: the store keeps it.

    Attributes:
        id: the task's id, which `upon tasks show` takes.
        stdout: the end of what the function printed; empty until it is done.
    """

    stdout = ""

    def __init__(self, task: str, connection: Connection, arguments: bytes | None = None) -> None:
        # as `Future.__init__`, which would make a condition of its own
        self._condition: Any = _Condition()
        self._state = PENDING
        self._result = self._exception = None
        self._waiting: list[Any] = []
        self._done_callbacks: list[Any] = []
        self.id = task
        self._connection = connection
        self._spared = False
        self._arguments = arguments if arguments is None or is_reference(arguments) else b""

    if not TYPE_CHECKING:

        @property
        def _waiters(self) -> list[Any]:
            """Where `futures.wait` and `as_completed` put themselves, in order to wait."""
            self._check_ours()
            return self._waiting

    def result(self, timeout: float | None = None) -> T:
        """Return the value, or raise what the task came to, waiting up to `timeout` seconds.

        Raises:
            TimeoutError: it is not done; it runs on.
            CancelledError: it was cancelled here.
            ServiceError: the future is that of another process, which forked this one.
            Exception: what the function raised, or a TaskError.
        """
        self._check_ours()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, None for a success. Waits and raises as `result`."""
        self._check_ours()
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[futures.Future[T]], object]) -> None:
        """Have `fn(future)` called once it is done, in the thread that delivers results.

        Raises:
            ServiceError: the future is that of another process, which forked this one.
        """
        self._check_ours()
        super().add_done_callback(fn)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result in an event loop; whoever cancels the waiting cancels the task."""
        return asyncio.wrap_future(self).__await__()

    def cancel(self) -> bool:
        """Cancel the task unless it is done; see the module's text. Returns whether it is cancelled."""
        if not self._connection.is_ours and not self.done():
            return False
        if not self._end_cancelled():
            return self.cancelled()
        self._connection.cancel(self.id)
        return True

    def spare(self) -> None:
        """Be cancelled if the site says that the task had not begun: the executor's part, not yours."""
        self._spared = True

    def begin(self) -> None:
        """Take in that the function has begun: the connection's part, not yours."""
        with self._condition:
            if self._state == PENDING:
                self._state = RUNNING

    def resolve(self, result: Result) -> None:
        """Take in the outcome: the connection's part, not yours."""
        self.stdout = result.stdout
        if self._spared and result.status == "cancelled":
            self._end_cancelled()
            return
        try:
            error = error_of(result, self._load)
            value = value_of(result, self._load) if error is None else None
            if error is None and self._arguments:
                self._connection.payloads.free(self._arguments, self.id)
        except BaseException as problem:
            error = problem
        with contextlib.suppress(futures.InvalidStateError):  # cancelled in the meantime
            if error is None:
                self.set_result(value)  # type: ignore[arg-type]
            else:
                self.set_exception(error)

    def fail(self, error: BaseException) -> None:
        """Take in that no outcome will come: the connection's part, not yours."""
        if self._spared and isinstance(error, TaskCancelled):
            self._end_cancelled()
            return
        with contextlib.suppress(futures.InvalidStateError):  # cancelled in the meantime
            self.set_exception(error)

    def _check_ours(self) -> None:
        if self._state in (PENDING, RUNNING) and not self._connection.is_ours:
            raise ServiceError(
                f"the result of task {self.id} arrives in the process that submitted it, and this one was forked from "
                f"that: submit here what is wanted here, or ask for the result with Client().wait({self.id!r})"
            )

    def _load(self, payload: bytes) -> Any:
        value = self._connection.payloads.loads(payload)
        if self._arguments is not None:
            self._connection.payloads.free(payload, self.id)
        return value

    def _end_cancelled(self) -> bool:
        """Be cancelled, for `futures.wait` and all callbacks too; returns False if it is done already."""
        with self._condition:
            if self._state not in (PENDING, RUNNING):
                return False
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiting:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True


def id_of(task: str | TaskFuture[Any]) -> str:
    """Return the id of a task that is named by its id or by its future, as it stands in a path: never empty."""
    return (task.id if isinstance(task, TaskFuture) else task) or " "
