"""`concurrent.futures` at a site: submit a function and its arguments, get a Future.

    with Executor(site="local") as ex:
        assert ex.submit(pow, 2, 10).result() == 1024

What differs from the executors of the standard library, because the work is elsewhere:
- A future is pending until its result is there: `running()` is always False.
- `cancel()` succeeds at any time before that: the future is cancelled at once; the task, if it is queued at the site,
  never starts, and if it runs, its process is killed. A result that was under way is dropped.
- An exception that the function raised has an `upon.errors.RemoteTraceback` as its cause; a task that did not get as
  far raises WorkerLost, TaskTimeout, TaskCancelled, FunctionLoadError, ResultError or another of `upon.errors`.
- `submit` raises FunctionError or InputError for what cannot be serialized, and waits while much is unsent.
- Callbacks run in one thread of the executor's; a callback must not wait for another future of it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, TypeVar

from upon.errors import InputError, ServiceUnavailable
from upon.ids import new_id
from upon.messages import FunctionCode, Invocation, Result, Retry
from upon.sdk import functions, mapping
from upon.sdk.connection import PATIENCE, Connection
from upon.sdk.outcome import error_of, value_of
from upon.sdk.target import Finder
from upon.topics import checked_site

T = TypeVar("T")
CLOSE = 2.0
"""Seconds that `shutdown` waits for the service to acknowledge the last of it, once all futures are done."""
ONCE_MORE_ON_LOST_WORKERS = Retry()


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

    def cancel(self) -> bool:
        """Cancel the task unless it is done; see the module's text. Returns whether it is cancelled."""
        with self._condition:
            if self._state != "PENDING":
                return self.cancelled()
            super().cancel()
            self.set_running_or_notify_cancel()
        self._connection.cancel(self.id)
        return True

    def resolve(self, result: Result) -> None:
        """Take in the outcome: the connection's part, not yours."""
        self.stdout = result.stdout
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
        with contextlib.suppress(futures.InvalidStateError):  # cancelled in the meantime
            self.set_exception(error)


class Submitter(futures.Executor):
    """Submits with certain options over an executor's connection; `Executor.options` makes them."""

    def __init__(self, connect: Callable[[], Connection], timeout: float, retry: Retry) -> None:
        self._connect, self._timeout, self._retry = connect, timeout, retry

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]:
        """Have `fn(*args, **kwargs)` run at the site. Takes some 20 µs.

        Raises:
            FunctionError: the function cannot be pickled; the message names the culprit.
            InputError: an argument cannot be serialized.
            PayloadTooLarge: the arguments are over the record limit.
            ServiceUnavailable: the service is gone for good.
            RuntimeError: after `shutdown`.
        """
        code = functions.code_of(fn)
        return self._send(fn, code, functions.pack_call(fn, args, kwargs), 0)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Have `fn` run on each item (or each tuple, of several iterables); return its values in order.

        Args:
            fn: the function.
            iterables: consumed at once; as many items as the shortest has.
            timeout: s from now until the last value must be there; default none.
            chunksize: items that travel and run together, one after the other, in one task. For short functions
                1,000 and more.

        Returns:
            An iterator that raises the exception of a bad item at its position, and goes on if asked for the next.
            Dropped early, it cancels what is left.

        Raises:
            TimeoutError: from the iterator.
            Others as `submit`.
        """
        if chunksize < 1:
            raise InputError(f"chunksize: must be 1 or more, not {chunksize}")
        if not iterables:
            raise InputError("map: give at least one iterable")
        code, sent = functions.code_of(fn), []
        for columns in mapping.chunks(iterables, chunksize):
            items = len(columns[0])
            sent.append((self._send(fn, code, functions.pack_chunk(fn, columns), items), items))
        return mapping.results(sent, timeout)  # type: ignore[arg-type]

    def options(
        self, *, timeout: float | None = None, attempts: int | None = None, retry: Retry | None = None
    ) -> Submitter:
        """Return a view of this executor that submits with other options.

            ex.options(timeout=5, attempts=3).submit(flaky, 1)

        Args:
            timeout: s that one attempt may take before its process is killed and it fails with TaskTimeout.
            attempts: how often a task that fails, for whatever reason, may start in all. The default is
                three times, for lost workers only.
            retry: the whole policy, instead of `attempts`.

        Raises:
            InputError: a value is out of range.
        """
        if timeout is not None and timeout <= 0:
            raise InputError(f"timeout: must be more than 0 s, not {timeout}")
        if attempts is not None:
            if retry is not None:
                raise InputError("give attempts or retry, not both")
            if attempts < 1:
                raise InputError(f"attempts: must be 1 or more, not {attempts}")
            retry = Retry(attempts=attempts, on=("Exception",))
        return Submitter(self._connect, timeout or self._timeout, retry or self._retry)

    def _send(self, fn: Callable[..., T], code: FunctionCode, payload: bytes, items: int) -> TaskFuture[T]:
        connection = self._connect()
        future: TaskFuture[T] = TaskFuture(new_id(), connection)
        invocation = Invocation(
            id=future.id,
            code=code.hash,
            function=functions.name_of(fn),
            payload=payload,
            items=items,
            timeout=self._timeout,
            retry=self._retry,
        )
        connection.submit(invocation, code, future)
        return future


class Executor(Submitter):
    """Runs functions at a site.

    Args:
        site: where; default ``local``. One that does not exist: each future raises SiteNotFound.
        home: the home folder whose profile names the service; default UPON_HOME, else the platform's.
        service, token: the service's address and a token, instead of the profile's.
        timeout, attempts, retry: see `options`.
        patience: s to wait for a service that was there and is lost, before all futures fail with ServiceUnavailable.

    Raises:
        ServiceUnavailable: no service answers (within 5 s), or its address is not known.
        NotAuthenticated: the token is missing or wrong.
        ConfigError: the site's name cannot be one, or the profile is unreadable.
        InputError: an option is out of range.
    """

    def __init__(
        self,
        site: str = "local",
        home: str | os.PathLike[str] | None = None,
        *,
        service: str | None = None,
        token: str | None = None,
        timeout: float | None = None,
        attempts: int | None = None,
        retry: Retry | None = None,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(self._connected, 0.0, ONCE_MORE_ON_LOST_WORKERS)
        given = self.options(timeout=timeout, attempts=attempts, retry=retry)
        self._timeout, self._retry = given._timeout, given._retry
        self.site = checked_site(site)
        self._find, self._patience = Finder(home, service, token), patience
        self._shut_down = False
        self._lock = threading.Lock()
        self._connection = self._open()

    def _open(self) -> Connection:
        connection = Connection(self._find, site=self.site, patience=self._patience)
        connection.open()
        weakref.finalize(self, connection.close).atexit = False
        return connection

    def _connected(self) -> Connection:
        """Return the connection; a forked child opens its own."""
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not self._connection.is_ours:
            with self._lock:
                if not self._connection.is_ours:
                    self._connection = self._open()
        return self._connection

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks.

        Args:
            wait: return when all futures are done; False: return at once, their results still arrive while this
                process lives.
            cancel_futures: cancel all that are not done, queued or running.
        """
        self._shut_down = True
        if not self._connection.is_ours:
            return
        try:
            waiting = [one for one in self._connection.unfinished() if isinstance(one, TaskFuture)]
        except ServiceUnavailable:
            waiting = []
        if cancel_futures:
            for future in waiting:
                future.cancel()
        if wait:
            futures.wait(waiting)
            self._connection.deliver()
        self._connection.close(CLOSE if wait else 0.0)
