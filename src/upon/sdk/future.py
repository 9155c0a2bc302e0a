"""The future of a task: a `concurrent.futures.Future` whose work is elsewhere.

Its states follow the site: pending, running once the site says so, then done or cancelled. It is resolved by a
connection, in the thread that runs callbacks. It refers to neither function nor arguments.
"""

from __future__ import annotations

import contextlib
from concurrent import futures
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, PENDING, RUNNING
from typing import TYPE_CHECKING, TypeVar

from upon.errors import TaskCancelled
from upon.messages import Result
from upon.sdk.outcome import error_of, value_of

if TYPE_CHECKING:
    from upon.sdk.connection import Connection

T = TypeVar("T")


class TaskFuture(futures.Future[T]):
    """The future of a task.

    Attributes:
        id: the task's id, which `upon tasks show` takes.
        stdout: the end of what the function printed; empty until it is done.
    """

    stdout = ""

    def __init__(self, task: str, connection: Connection) -> None:
        super().__init__()
        self.id = task
        self._connection = connection
        self._spared = False

    def cancel(self) -> bool:
        """Cancel the task unless it is done; see the module's text. Returns whether it is cancelled."""
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
            error = error_of(result)
            value = value_of(result) if error is None else None
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

    def _end_cancelled(self) -> bool:
        """Be cancelled, for `futures.wait` and all callbacks too; returns False if it is done already."""
        with self._condition:
            if self._state not in (PENDING, RUNNING):
                return False
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:  # type: ignore[attr-defined]
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True
