"""`concurrent.futures` at a site: submit a function and its arguments, get a Future.

    with Executor(site="local") as ex:
        assert ex.submit(pow, 2, 10).result() == 1024
        thumbnail = ex.submit("thumbs.make", "/data/a.png")  # a registered function, by name[@version]

What differs from the executors of the standard library, because the work is elsewhere:
- `running()` becomes True a moment after the function has begun, and for one that is quickly done not at all. It stays
  True while the task is tried again.
- `cancel()` succeeds at any time before the result is there: the future is cancelled at once; the task, if it is queued
  at the site, never starts, and if it runs, its process is killed. A result that was under way is dropped.
- Ctrl-C cancels so all that is not done, and says so, unless the executor is to `keep` it.
- An exception that the function raised has an `upon.errors.RemoteTraceback` as its cause; a task that did not get as
  far raises WorkerLost, TaskTimeout, TaskCancelled, FunctionLoadError, ResultError or another of `upon.errors`.
- `submit` raises FunctionError or InputError for what cannot be serialized, and waits while much is unsent.
- Callbacks run in one thread of the executor's; a callback must not wait for another future of it.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from itertools import chain
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from upon.errors import InputError, ServiceError, ServiceUnavailable
from upon.ids import new_id
from upon.messages import FunctionCode, Invocation, Retry
from upon.sdk import functions, mapping
from upon.sdk.connection import PATIENCE, Connection
from upon.sdk.future import TaskFuture
from upon.sdk.options import Options
from upon.sdk.remote_store import RemoteStore
from upon.sdk.rest import Rest
from upon.sdk.target import Finder
from upon.store.payloads import Payloads
from upon.topics import checked_site

T = TypeVar("T")
CLOSE = 2.0
"""Seconds that `shutdown` waits for the service to acknowledge the last of it, once all futures are done."""
ANSWER = 5.0
"""Seconds that `shutdown(cancel_futures=True)` waits for the site to say what had begun."""
MAX_GROUP = 200
"""Characters of a group's name that the service takes."""
STORE = 30.0
"""Seconds of attempts to reach the store through the service."""


class Submitter(futures.Executor):
    """Submits with certain options over an executor's connection; `Executor.options` makes them."""

    def __init__(self, connect: Callable[[], Connection], options: Options) -> None:
        self._connect, self._options = connect, options

    @overload  # type: ignore[override]
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]: ...
    @overload
    def submit(self, fn: str, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]: ...
    def submit(self, fn: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Have `fn(*args, **kwargs)` run at the site. Takes some 10 µs.

        Args:
            fn: a function, or the name of a registered one: ``name[@version]``, the newest version by default. A name
                that is not registered: the future raises FunctionNotFound.
            args, kwargs: its arguments.

        Raises:
            FunctionError: the function cannot be pickled; the message names the culprit.
            InputError: an argument cannot be serialized.
            PayloadTooLarge: the arguments are over the record limit, and no store is in reach.
            StoreError: the store has no room for them.
            ServiceUnavailable: the service is gone for good.
            RuntimeError: after `shutdown`.
        """
        connection, id = self._connect(), new_id()
        if isinstance(fn, str):
            payload = functions.pack_call(connection.payloads, id, fn, args, kwargs)
            return self._send(connection, id, fn, None, payload, 0)
        plain, given, named = functions.apart(fn, args, kwargs)
        code = functions.code_of(plain)
        payload = functions.pack_call(connection.payloads, id, fn, given, named)
        return self._send(connection, id, fn, code, payload, 0)

    @overload  # type: ignore[override]
    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]: ...
    @overload
    def map(
        self, fn: str, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Any]: ...
    def map(
        self, fn: Callable[..., Any] | str, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Any]:
        """Have `fn` run on each item (or each tuple, of several iterables); return its values in order.

        Args:
            fn: a function, or the name of a registered one, as in `submit`.
            iterables: consumed at once; as many items as the shortest has.
            timeout: s from now until the last value must be there; default none.
            chunksize: items that travel and run together, one after the other, in one task. For short functions
                1,000 and more.

        Returns:
            An iterator that raises the exception of a bad item at its position, and goes on if asked for the next.
            Dropped early, it cancels what is left.

        Raises:
            TimeoutError: from the iterator.
            ValueError: chunksize is less than 1.
            Others as `submit`.
        """
        return chain.from_iterable(self.chunks(fn, *iterables, timeout=timeout, chunksize=chunksize))  # iterates in C

    def chunks(
        self, fn: Callable[..., Any] | str, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Iterable[Any]]:
        """Do as `map`; return its values chunk by chunk, each to be iterated over once, as they come from the site."""
        if chunksize < 1:
            raise ValueError(f"chunksize: must be 1 or more, not {chunksize}")
        if not iterables:
            raise InputError("map: give at least one iterable")
        code = _code_of(fn)
        sent: list[tuple[futures.Future[Any], int]] = []
        for columns in mapping.chunks(iterables, chunksize):
            items = len(columns[0])
            connection, id = self._connect(), new_id()
            payload = functions.pack_chunk(connection.payloads, id, fn, columns)
            sent.append((self._send(connection, id, fn, code, payload, items), items))
        return mapping.results(sent, timeout)

    def options(
        self,
        *,
        timeout: float | str | None = None,
        attempts: int | None = None,
        retry: Retry | None = None,
        cores: int | None = None,
        memory: int | str | None = None,
        accelerators: int | None = None,
        priority: int | None = None,
        limits: Mapping[str, int] | None = None,
        memoize: bool | None = None,
    ) -> Submitter:
        """Return a view of this executor that submits with other options; what is not given stays as it is here.

            ex.options(timeout=5, attempts=3).submit(flaky, 1)

        Args:
            timeout: s, or a duration such as ``10m``, that one attempt may take before its process is killed and it
                fails with TaskTimeout.
            attempts: how often a task that fails, for whatever reason, may start in all. The default is
                three times, for lost workers only.
            retry: the whole policy, instead of `attempts`.
            cores: how many it has for itself, and is bound to; default one, and bound to none.
            memory: bytes, or text such as ``4GB``, that it and its children may take: it is given to a manager that has
                so much left, and killed, with TaskOutOfMemory, if it takes more. Default not bounded.
            accelerators: GPUs and the like that it has for itself; it sees no others.
            priority: from -1000 to 1000; among the tasks of this executor, higher ones begin first.
            limits: names, such as ``{"detector": 1}``: of all tasks that name it, so many are at the site's managers at
                once.
            memoize: the site may give the value of the same call (the same code and arguments) in place of running it
                again: for functions that have no effect beside their value.

        Raises:
            InputError: a value is out of range.
        """
        given = self._options.but(
            timeout=timeout,
            attempts=attempts,
            retry=retry,
            cores=cores,
            memory=memory,
            accelerators=accelerators,
            priority=priority,
            limits=limits,
            memoize=memoize,
        )
        return Submitter(self._connect, given)

    def _send(  # noqa: PLR0917
        self,
        connection: Connection,
        id: str,
        fn: Callable[..., Any] | str,
        code: FunctionCode | None,
        payload: bytes,
        items: int,
    ) -> TaskFuture[Any]:
        future: TaskFuture[Any] = TaskFuture(id, connection, payload)
        invocation = Invocation(
            id=future.id,
            code=code.hash if code is not None else "",
            function=functions.name_of(fn),
            payload=payload,
            items=items,
            timeout=self._options.timeout,
            retry=self._options.retry,
            resources=self._options.resources,
            priority=self._options.priority,
            limits=self._options.limits,
            memoize=self._options.memoize,
        )
        try:
            connection.submit(invocation, code, future)
        except ServiceError:
            connection.payloads.free(payload, id)
            raise
        return future


def checked_group(group: str) -> str:
    """Return a group's name if it can be one. Raises InputError."""
    if len(group) > MAX_GROUP or not group.isprintable():
        raise InputError(f"group {group[:MAX_GROUP]!r}: 1 to {MAX_GROUP} printable characters")
    return group


def _code_of(fn: Callable[..., Any] | str) -> FunctionCode | None:
    return None if isinstance(fn, str) else functions.code_of(fn)


class Executor(Submitter):
    """Runs functions at a site.

    Args:
        site: where; default ``local``. One that does not exist: each future raises SiteNotFound.
        home: the home folder whose profile names the service; default UPON_HOME, else the platform's.
        service, token: the service's address and a token, instead of the profile's.
        timeout, attempts, retry: see `options`.
        group: a name for what is submitted here: another process gets all of its results with
            `Client.futures(group)`. Default: one that no other executor has.
        keep: what is not done when Ctrl-C comes runs on; default: it is cancelled.
        patience: s to wait for a service that was there and is lost, before all futures fail with ServiceUnavailable.

    Raises:
        ServiceUnavailable: no service answers (within 5 s), or its address is not known.
        NotAuthenticated: the token is missing or wrong.
        ConfigError: the site's name cannot be one, or the profile is unreadable.
        InputError: an option is out of range, or the group's name cannot be one.
    """

    def __init__(
        self,
        site: str = "local",
        home: str | os.PathLike[str] | None = None,
        *,
        service: str | None = None,
        token: str | None = None,
        timeout: float | str | None = None,
        attempts: int | None = None,
        retry: Retry | None = None,
        group: str = "",
        keep: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(self._connected, Options().but(timeout=timeout, attempts=attempts, retry=retry))
        self.site = checked_site(site)
        self._find, self._patience = Finder(home, service, token), patience
        self._shut_down, self._keep, self._group = False, keep, group and checked_group(group)
        self._lock = threading.Lock()
        self._connection = self._open()
        _open.add(self)

    def _open(self) -> Connection:
        rest = Rest(self._find, min(self._patience, STORE))
        payloads = Payloads(self._find.where, lambda: RemoteStore(rest))
        connection = Connection(
            self._find, site=self.site, patience=self._patience, payloads=payloads, group=self._group
        )
        connection.open()
        weakref.finalize(self, connection.close).atexit = False
        return connection

    @property
    def group(self) -> str:
        """Under which name the service knows what is submitted here; a forked child has one of its own."""
        return self._connection.group

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
            cancel_futures: cancel all that have not begun; what runs goes on to its end. Which is which the site says
                (the futures are cancelled when it has); one that does not answer within `ANSWER` s: what is not known
                to run is cancelled.

        Raises:
            KeyboardInterrupt: what is not done is cancelled, unless the executor is to `keep` it.
        """
        self._shut_down = True
        _open.discard(self)
        if not self._connection.is_ours:
            return
        try:
            waiting = self._unfinished()
            if cancel_futures:
                for future in waiting:
                    future.spare()
                self._connection.spare([future.id for future in waiting])
            if wait:
                if cancel_futures:
                    futures.wait(waiting, ANSWER)
                    for future in waiting:
                        if not (future.done() or future.running()):
                            future.cancel()
                futures.wait(waiting)
                self._connection.deliver()
            self._connection.close(CLOSE if wait else 0.0)
        except KeyboardInterrupt:
            self._interrupted()
            raise

    def _unfinished(self) -> list[TaskFuture[Any]]:
        try:
            return [one for one in self._connection.unfinished() if isinstance(one, TaskFuture)]
        except ServiceUnavailable:
            return []

    def _interrupted(self) -> None:
        """Cancel what is not done, or leave it running; say which."""
        self._shut_down = True
        _open.discard(self)
        left = self._unfinished() if self._connection.is_ours else []
        if not left:
            return
        what = f"{len(left):,} task{'s' if len(left) > 1 else ''} at site {self.site}"
        if self._keep:
            self._connection.close()
            print(f"upon: interrupted; left running: {what} (upon tasks list)", file=sys.stderr)
            return
        for future in left:
            future.cancel()
        self._connection.close(CLOSE)
        print(f"upon: interrupted; cancelled {what}: Executor(keep=True) would have let them run on", file=sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if isinstance(error, KeyboardInterrupt):
            self._interrupted()
        else:
            self.shutdown(wait=True)
        return False


_open: weakref.WeakSet[Executor] = weakref.WeakSet()


def _at_exit() -> None:
    """A script that uses no `with` is ended by Ctrl-C: its executors learn it here. A prompt outlives its Ctrl-C."""
    if getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1"):
        for executor in list(_open):
            executor._interrupted()


atexit.register(_at_exit)  # before the thread that does the I/O is closed: that was registered earlier
