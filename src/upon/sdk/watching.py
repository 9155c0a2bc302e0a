"""What happens in the system, as it happens: `Changes` to iterate over, and `Outcomes` of tasks to wait for."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable
from typing import Any

from upon import api
from upon.errors import ServiceError, ServiceUnavailable, UponError
from upon.messages import FINAL
from upon.sdk.connection import Connection, Pushed
from upon.sdk.future import TaskFuture
from upon.sdk.target import Target
from upon.store.payloads import Payloads

Change = api.EventSeen | api.TaskChanged

LOOK_AGAIN = 5.0
"""Seconds after which a waiter asks by itself, should it have missed the push."""


class Changes:
    """Events as they pass and tasks as they change, from the moment this object exists. Iterates without end.

    `missed` of an item says how many were left out before it, because this process was too slow. While the
    connection is lost, what passes is not seen.

    Args:
        on_seen: called whenever there is something, in the I/O thread.
    """

    def __init__(
        self, find: Callable[[], Target], *, events: bool, tasks: bool, on_seen: Callable[[], object] | None = None
    ) -> None:
        self._seen: queue.SimpleQueue[Pushed | UponError] = queue.SimpleQueue()
        self._on_seen = on_seen
        wanted = api.Watch(request=0, events=events, tasks=tasks)
        self._connection = Connection(find, watch=wanted, on_pushed=self._put, on_end=self._put)
        self._connection.open()

    def _put(self, found: Pushed | UponError) -> None:
        self._seen.put(found)
        if self._on_seen is not None:
            self._on_seen()

    def next(self, timeout: float | None = None) -> Change | None:
        """Return the next change; None if there is none within `timeout` seconds.

        Raises:
            ServiceUnavailable: the service is gone for good, or this was closed.
            ServiceError: this is a process that was forked from the one that watches.
        """
        if not self._connection.is_ours:
            raise ServiceError("what is watched arrives in the process from which this one was forked: watch anew here")
        try:
            found = self._seen.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(found, UponError):
            self._seen.put(found)  # for whoever asks again
            raise found
        return found

    def __iter__(self) -> Changes:
        return self

    def __next__(self) -> Change:
        change = self.next()
        assert change is not None  # there was no timeout
        return change

    def close(self) -> None:
        """Watch no more."""
        self._connection.close()
        self._put(ServiceUnavailable("the watch was closed"))

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # opening failed
            self._connection.close()


class Outcomes:
    """The results of tasks, whoever submitted them: asked for once the service says that they are done."""

    def __init__(self, find: Callable[[], Target], payloads: Payloads) -> None:
        self._waiting: dict[str, TaskFuture[Any]] = {}
        watched = api.Watch(request=0, tasks=True)
        self._connection = Connection(find, watch=watched, on_pushed=self._changed, payloads=payloads)
        self._connection.open()

    @property
    def is_usable(self) -> bool:
        """Whether it is of this process and its connection was not given up."""
        return self._connection.is_usable

    def wait(self, task: str, deadline: float | None) -> Any:
        """Return a task's value.

        Raises:
            TimeoutError: it is not done at `deadline` (of `time.monotonic`).
            Exception: what the function raised, or an error of the tree.
        """
        future: TaskFuture[Any] = TaskFuture(task, self._connection)
        self._waiting[task] = future
        try:
            while True:
                self._connection.want([task], [future])
                left = LOOK_AGAIN if deadline is None else min(LOOK_AGAIN, deadline - time.monotonic())
                try:
                    error = future.exception(max(0.0, left))
                except TimeoutError:
                    if deadline is not None and time.monotonic() >= deadline:
                        raise TimeoutError(f"task {task} is not done yet; it runs on") from None
                    continue
                if error is not None:
                    raise error
                return future.result()
        finally:
            self._waiting.pop(task, None)
            self._connection.forget(task)

    def close(self) -> None:
        """Be told no more."""
        self._connection.close()

    def _changed(self, frame: Pushed) -> None:
        if not isinstance(frame, api.TaskChanged):
            return
        done = [frame.task.id] if frame.task.status in FINAL else []
        for task in list(self._waiting) if frame.missed else done:
            if (future := self._waiting.get(task)) is not None and self._connection.is_usable:
                self._connection.want([task], [future])
