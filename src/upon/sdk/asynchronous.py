"""The same in an event loop: `AsyncClient` does what `Client` and `Executor` do, and no call blocks the loop.

    async with AsyncClient() as client:
        future = await client.submit(pow, 2, 10)
        assert await future == 1024
        async for value in client.map(area, range(1000), range(1000)):
            ...

There is one protocol and one implementation: each call is that of a `Client` or an `Executor`, made in a thread; the
future is a `TaskFuture`, which can be awaited. Whoever stops waiting for it cancels the task.
Not here: anything that has to do with the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from upon import api
from upon.events import Event
from upon.sdk.client import Client
from upon.sdk.executor import Executor
from upon.sdk.future import TaskFuture
from upon.sdk.submitter import Submitter
from upon.sdk.watching import Change, Changes

T = TypeVar("T")
P = ParamSpec("P")
THREADS = 16
"""Calls that are under way at once; further ones wait for their turn. Waiting for a future takes none."""
_END: Any = object()


class _Threads:
    """Runs what blocks in threads of its own: the loop's may all be taken by what waits for a task."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "upon-calls")

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call = partial(copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        self._pool.shutdown(wait=False)


class AsyncSubmitter:
    """Submits functions with certain options; `AsyncClient.options` makes them."""

    def __init__(self, threads: _Threads, submitter: Callable[[], Submitter]) -> None:
        self._threads, self._submitter = threads, submitter

    @overload
    async def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]: ...
    @overload
    async def submit(self, fn: str, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]: ...
    async def submit(self, fn: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Have a function run, with any Python objects as arguments; return its future. See `Executor.submit`."""
        return await self._threads(lambda: self._submitter().submit(fn, *args, **kwargs))

    def map(self, fn: Callable[..., T] | str, *iterables: Iterable[Any], **options: Any) -> AsyncMap:
        """Have a function run on each item; iterate over its values in order. See `Executor.map`, also for options.

        The iterables are consumed in a thread. A bad item raises at its position; the next one may be asked for.
        """
        return AsyncMap(self._threads, lambda: self._submitter().chunks(fn, *iterables, **options))

    def options(self, **options: Any) -> AsyncSubmitter:
        """Return a view that submits with other options. See `Executor.options`."""
        return AsyncSubmitter(self._threads, lambda: self._submitter().options(**options))


class AsyncClient(AsyncSubmitter):
    """A client in an event loop. Leaving its block waits for what was submitted; a cancelled block cancels that.

    Args:
        home, service, token: as for `Client`.
        site: where functions run.
        options: further ones of `Executor`.

    Attributes:
        sync: the `Client` underneath, for all else: ``await asyncio.to_thread(client.sync.rules)``.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        service: str | None = None,
        token: str | None = None,
        *,
        site: str = "local",
        **options: Any,
    ) -> None:
        super().__init__(_Threads(), self._opened)
        self.sync = Client(home, service, token)
        self._site = site
        self._open = partial(Executor, site, home, service=service, token=token, **options)
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    def _opened(self) -> Executor:
        with self._lock:
            if self._executor is None:
                self._executor = self._open()
            return self._executor

    async def invoke(self, function: str, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Run a registered function with plain arguments; return its future. See `Client.invoke`."""
        return await self._threads(partial(self.sync.invoke, function, *args, **{"site": self._site, **kwargs}))

    async def register(self, function: Callable[..., Any], name: str | None = None, **options: Any) -> api.Function:
        """Register a function's next version. See `Client.register`."""
        return await self._threads(partial(self.sync.register, function, name, **options))

    async def publish(self, event: Event | Sequence[Event]) -> list[str]:
        """Publish an event, or several in order; return their ids once Kafka has them."""
        return await self._threads(self.sync.publish, event)

    async def tasks(self, **choice: Any) -> list[api.Task]:
        """Return tasks, newest first. See `Client.tasks`."""
        return await self._threads(partial(self.sync.tasks, **choice))

    async def task(self, id: str | TaskFuture[Any]) -> api.Task:
        """Return a task with its timings. See `Client.task`."""
        return await self._threads(self.sync.task, id)

    async def futures(self, group: str) -> list[TaskFuture[Any]]:
        """Return a future for each task of a group. See `Client.futures`."""
        return await self._threads(self.sync.futures, group)

    async def cancel(self, id: str | TaskFuture[Any]) -> None:
        """Ask that a task does not run, or not run on. See `Client.cancel`."""
        await self._threads(self.sync.cancel, id)

    def watch(self, *, events: bool = False, tasks: bool = False) -> AsyncChanges:
        """Return events as they pass and tasks as they change, to iterate over without end.

        In an ``async with`` it is from the block's beginning on, else from the first item that is asked for.
        """
        return AsyncChanges(self._threads, partial(self.sync.watch, events=events, tasks=tasks))

    @staticmethod
    async def as_completed(
        futures: Iterable[TaskFuture[T]], timeout: float | None = None
    ) -> AsyncIterator[TaskFuture[T]]:
        """Yield futures as they are done, in any order.

        Raises:
            TimeoutError: the last one is not done `timeout` seconds after the first is asked for.
        """
        loop, done, waiting = asyncio.get_running_loop(), asyncio.Queue[Any](), set(futures)
        deadline = None if timeout is None else time.monotonic() + timeout
        for future in waiting:
            future.add_done_callback(partial(_post, loop, done.put_nowait))
        for _ in range(len(waiting)):
            yield await asyncio.wait_for(
                done.get(), None if deadline is None else max(0.0, deadline - time.monotonic())
            )

    async def close(self) -> None:
        """Wait for what was submitted, and close the connections. Cancelled meanwhile, it cancels what is not done."""
        await self._end(lambda executor: executor.shutdown())

    async def _end(self, how: Callable[[Executor], object]) -> None:
        executor = self._executor
        try:
            if executor is not None:
                ending = asyncio.ensure_future(self._threads(how, executor))
                try:
                    await asyncio.shield(ending)
                except asyncio.CancelledError:
                    await self._threads(_interrupt, executor)
                    raise
            await self._threads(self.sync.close)
        finally:
            self._threads.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
        await self._end(_interrupt if interrupted else Executor.shutdown)


class AsyncMap(AsyncIterator[Any]):
    """The values of a map, in order."""

    def __init__(self, threads: _Threads, begin: Callable[[], Iterator[Iterable[Any]]]) -> None:
        self._threads, self._begin = threads, begin
        self._chunks: Iterator[Iterable[Any]] | None = None
        self._items: Iterator[Any] = iter(())
        self._coming: asyncio.Future[Iterable[Any]] | None = None

    def __aiter__(self) -> AsyncMap:
        return self

    async def __anext__(self) -> Any:
        while (value := next(self._items, _END)) is _END:
            if self._coming is None:
                self._coming = asyncio.ensure_future(self._threads(self._next_chunk))
            try:
                chunk = await asyncio.shield(self._coming)  # whoever stops waiting for it may ask again
            finally:
                if self._coming.done():
                    self._coming = None
            if chunk is _END:
                raise StopAsyncIteration
            self._items = iter(chunk)
        return value

    def _next_chunk(self) -> Iterable[Any]:
        if self._chunks is None:
            self._chunks = self._begin()
        return next(self._chunks, _END)


class AsyncChanges(AsyncIterator[Change]):
    """Events as they pass and tasks as they change. See `Changes`."""

    def __init__(self, threads: _Threads, watch: Callable[..., Changes]) -> None:
        self._threads, self._watch = threads, watch
        self._changes: Changes | None = None
        self._something = asyncio.Event()

    async def __aenter__(self) -> AsyncChanges:
        if self._changes is None:
            seen = partial(_post, asyncio.get_running_loop(), lambda _: self._something.set(), None)
            self._changes = await self._threads(self._watch, on_seen=seen)
        return self

    def __aiter__(self) -> AsyncChanges:
        return self

    async def __anext__(self) -> Change:
        await self.__aenter__()
        assert self._changes is not None
        while (change := self._changes.next(0)) is None:
            await self._something.wait()
            self._something.clear()
        return change

    async def close(self) -> None:
        """Watch no more."""
        if self._changes is not None:
            await self._threads(self._changes.close)

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[[Any], object], value: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(callback, value)


def _interrupt(executor: Executor) -> None:
    executor.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
