"""Submitting with certain options: single calls, and maps. What an `Executor` is, and its `options` return."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, overload

from upon.errors import InputError, ServiceError
from upon.ids import new_id
from upon.messages import FunctionCode, Invocation, Retry
from upon.sdk import functions, mapping
from upon.sdk.connection import Connection
from upon.sdk.future import TaskFuture
from upon.sdk.options import Options
from upon.store.reference import size_of

if TYPE_CHECKING:
    from upon.sdk.executor import Executor

T = TypeVar("T")


class Submitter(futures.Executor):
    """Submits with certain options over an executor's connection; `Executor.options` makes them."""

    def __init__(self, executor: Executor, options: Options) -> None:
        self._executor, self._options = executor, options

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
        connection, id = self._executor._connected(), new_id()
        if isinstance(fn, str):
            payload = functions.pack_call(connection.payloads, id, fn, args, kwargs)
            return self._send(connection, id, fn, None, payload, 0)
        plain, given, named = functions.apart(fn, args, kwargs)
        pythons = self._executor._known_site.pythons()
        code = functions.code_of(plain, pythons)
        payload = functions.pack_call(connection.payloads, id, fn, given, named)
        functions.check_arguments(payload, fn, pythons)
        return self._send(connection, id, fn, code, payload, 0)

    @overload  # type: ignore[override]
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]: ...
    def map(
        self,
        fn: Callable[..., Any] | str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Have `fn` run on each item (or each tuple, of several iterables); return its values in order, as they come.

        Args:
            fn: a function, or the name of a registered one, as in `submit`.
            iterables: consumed at once, unless there is a `buffersize`; as many items as the shortest has.
            timeout: s from now until the last value must be there; default none.
            chunksize: items that travel and run together, one after the other, in one task. Default: as many as take
                some 0.2 s, found out on the way from chunks of one item on; never so many that a worker has none.
            buffersize: items that are consumed before their values were asked for, at most; so the iterables may be
                endless. They are consumed by whoever iterates.

        Returns:
            An iterator that raises the exception of a bad item at its position, and goes on if asked for the next.
            Dropped early, it cancels what is left.

        Raises:
            TimeoutError: from the iterator.
            ValueError: chunksize or buffersize is less than 1.
            Others as `submit`. Of an item that cannot be serialized from the iterator, unless there is a `chunksize`.
        """
        found = self.chunks(fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)
        return chain.from_iterable(found)  # iterates in C

    def chunks(
        self,
        fn: Callable[..., Any] | str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Iterable[Any]]:
        """Do as `map`; return its values chunk by chunk, each to be iterated over once, as they come from the site."""
        for name, value in (("chunksize", chunksize), ("buffersize", buffersize)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be 1 or more, not {value}")
        if not iterables:
            raise InputError("map: give at least one iterable")
        deadline = None if timeout is None else time.monotonic() + timeout
        first, pythons = self._executor._connected(), self._executor._known_site.pythons()
        code = None if isinstance(fn, str) else functions.code_of(fn, pythons)

        def send(columns: mapping.Columns) -> tuple[TaskFuture[Any], int]:
            connection = first if buffersize is None else self._executor._connected()  # not after `shutdown`
            id = new_id()
            payload = functions.pack_chunk(connection.payloads, id, fn, columns)
            functions.check_arguments(payload, fn, pythons)
            return self._send(connection, id, fn, code, payload, len(columns[0])), size_of(payload)

        at_once = chunksize is not None and buffersize is None
        workers = 1 if at_once else self._executor._known_site.workers()
        work = min(mapping.WORK, self._options.timeout / 4 or mapping.WORK)
        rows = mapping.Rows(iterables, collected=buffersize is None and not at_once)
        made = mapping.Map(rows, send, mapping.Sizes(workers, work), size=chunksize, ahead=buffersize)
        if buffersize is None:
            self._executor._maps.add(made)
        made.feed()
        return made.chunks(deadline)

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
        return Submitter(self._executor, given)

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
