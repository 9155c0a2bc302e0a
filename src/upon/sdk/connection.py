"""The WebSocket to the service, over all its losses: one `Connection` stands for one group of waiting futures.

    user's thread ── submit, cancel ──▶ intake ── I/O thread: Ledger ──▶ frames ──▶ service
    user's thread ◀── Future ◀── results thread ◀── results ◀── frames ◀──────────────┘

Guarantees: the service or Kafka may restart and nothing is lost or run twice (`ledger`); whoever submits more than
`MAX_BYTES` ahead of the service waits; whatever is queued leaves in one frame, as soon as less than two submits are
under way.
A loss is healed quietly for `patience` seconds, then all waiters fail with ServiceUnavailable.
Not here: what frames mean (`ledger`, `upon.api`), how to connect (`dialing`), unpickling and callbacks (`delivery`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import aiohttp

from upon.api import (
    Attach,
    Done,
    EventSeen,
    FromService,
    Refused,
    Results,
    TaskChanged,
    Watch,
    decode_from_service,
    encode_frame,
    raised,
)
from upon.errors import ServiceError, ServiceUnavailable, TaskCancelled, UponError
from upon.ids import new_id
from upon.messages import FunctionCode, Invocation
from upon.sdk.background import EXIT_GRACE, background
from upon.sdk.delivery import Delivery, Waiter
from upon.sdk.dialing import Dialer
from upon.sdk.ledger import Ledger, size
from upon.sdk.target import Target
from upon.store.payloads import Payloads, Where

PATIENCE = 600.0
"""Seconds of attempts before a service that was there counts as gone."""
RETRY = 0.5
"""Seconds before a request is sent again that was refused for a reason that passes, such as Kafka restarting."""
MAX_BYTES = 64 * 1024 * 1024
"""Bytes submitted and not yet in Kafka, past which submit waits."""

log = logging.getLogger(__name__)  # in a user's process: theirs to configure

Pushed = EventSeen | TaskChanged
_Post = tuple[Invocation, FunctionCode | None, Waiter] | str | Callable[[Ledger[Waiter]], None]


class Connection:
    """One group's connection to the service. Threads may share it.

    Args:
        find: returns where the service is; asked at each attempt.
        site: where submitted invocations go.
        watch: what to have pushed; see `on_pushed`.
        on_pushed, on_end: called in the I/O thread, with each pushed frame; with the error that ended the connection.
        patience: seconds to heal a loss.
        payloads: reads the results' payloads; default: none through a store.
        group: under which name the service knows who waits here; default a new one.
    """

    def __init__(
        self,
        find: Callable[[], Target],
        *,
        site: str = "local",
        watch: Watch | None = None,
        on_pushed: Callable[[Pushed], None] | None = None,
        on_end: Callable[[UponError], None] | None = None,
        patience: float = PATIENCE,
        payloads: Payloads | None = None,
        group: str = "",
    ) -> None:
        self.payloads = payloads or Payloads(lambda: Where(None))
        self._dialer, self._patience, self._on_pushed, self._on_end = Dialer(find), patience, on_pushed, on_end
        self._ledger: Ledger[Waiter] = Ledger(group=group or new_id(), site=site, watch=watch)
        self._intake: deque[_Post] = deque()
        self._waking = False
        self._taken_bytes = 0
        self._waiting = 0
        self._room = threading.Condition()
        self._delivery = Delivery()
        self._pid = os.getpid()
        self._ended: UponError | None = None
        self._closing = False
        self._refused_since = 0.0

    # ── from the user's threads ───────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Connect; return when the service has answered, and when it watches, if it is to watch.

        Raises:
            ServiceUnavailable: nobody answered for `CONNECT` seconds, or no address is known.
            NotAuthenticated: the token is missing or wrong.
            ConfigError: profile or address are unreadable.
        """
        self._background = background()
        self._background.run(self._start())
        self._delivery.start()

    def submit(self, invocation: Invocation, code: FunctionCode | None, waiter: Waiter) -> None:
        """Have an invocation run, of a registered function if it has no code; waits while `MAX_BYTES` are ahead of it.

        Raises:
            ServiceError: the connection was given up, with the reason, or closed.
        """
        with self._room:
            if self._taken_bytes - self._ledger.freed > MAX_BYTES:
                self._wait_for_room()
            if self._ended is not None:
                raise self._ended
            self._taken_bytes += size(invocation)
            self._intake.append((invocation, code, waiter))
        if not self._waking:
            self._wake()

    def _wait_for_room(self) -> None:
        if self._delivery.is_here:
            return  # a callback that submits: the results behind it would wait for it
        self._waiting += 1
        try:
            while self._taken_bytes - self._ledger.freed > MAX_BYTES and self._ended is None:
                self._room.wait(1.0)
        finally:
            self._waiting -= 1

    def cancel(self, task: str) -> None:
        """Forget the waiter of a task and ask that it does not run, or not run on."""
        self._intake.append(task)
        self._wake()

    def want(self, tasks: Sequence[str], waiters: Sequence[Waiter], sites: Sequence[str] = ()) -> None:
        """Ask for the results of tasks (at `sites`); of this group's also if they are not done. Raises as `submit`."""
        self._have(lambda ledger: ledger.want(tasks, waiters, sites))

    def expect(self, task: str, site: str, waiter: Waiter) -> None:
        """Wait for a task that is about to be submitted in another way, for `group`. Raises as `submit`."""
        self._have(lambda ledger: ledger.expect(task, site, waiter))

    def _have(self, post: Callable[[Ledger[Waiter]], None]) -> None:
        with self._room:
            if self._ended is not None:
                raise self._ended
            self._intake.append(post)
        self._wake()

    def spare(self, tasks: Sequence[str]) -> None:
        """Ask that these do not run unless they have begun; those that were not sent fail with TaskCancelled."""

        def never_sent(ledger: Ledger[Waiter]) -> None:
            dropped = ledger.spare(tasks)
            self._delivery.failure(dropped, TaskCancelled("cancelled before it had left this process"))
            self._make_room()

        self._intake.append(never_sent)
        self._wake()

    def forget(self, task: str) -> None:
        """Nobody waits for this task any more; it runs on."""
        self._intake.append(lambda ledger: ledger.forget(task))
        self._wake()

    def unfinished(self) -> list[Waiter]:
        """Return who waits now."""

        async def look() -> list[Waiter]:
            self._take_in()
            return list(self._ledger.unfinished.values())

        return self._background.run(look())

    def deliver(self) -> None:
        """Return when all results that are here have reached their waiters."""
        self._delivery.flush()

    def close(self, wait: float = 0.0) -> None:
        """Close once nothing is under way any more; return when it is closed, or after `wait` seconds."""
        self._closing = True
        self._wake()
        if wait:
            with contextlib.suppress(TimeoutError):
                self._background.run(self._closed(), wait)

    @property
    def group(self) -> str:
        """Under which name the service knows who waits here."""
        return self._ledger.group

    @property
    def is_usable(self) -> bool:
        """Whether it is ours and not given up."""
        return self.is_ours and self._ended is None

    @property
    def is_ours(self) -> bool:
        """Whether this process opened it: after a fork the child has to open its own."""
        return self._pid == os.getpid()

    def _wake(self) -> None:
        self._waking = True
        self._background.post(self._woken)

    # ── in the I/O thread ─────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self) -> None:
        self._something = asyncio.Event()
        self._idle = asyncio.Event()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._runner = asyncio.create_task(self._run())
        self._background.at_exit.add(self._finish)
        try:
            await self._opened
        except BaseException:
            self._runner.cancel()
            raise

    def _woken(self) -> None:
        self._take_in()
        self._something.set()

    def _take_in(self) -> None:
        """Move what the users' threads posted into the ledger, in order; cancellations in a row together.

        While no submit may leave, none wakes this thread: the answer that it waits for will.
        """
        intake, ledger, cancelled = self._intake, self._ledger, list[str]()
        self._waking = ledger.is_full and not self._closing
        while intake:
            post = intake.popleft()
            if isinstance(post, str):
                cancelled.append(post)
                continue
            if cancelled:
                ledger.cancel(cancelled)
                cancelled = []
            if isinstance(post, tuple):
                ledger.submit(*post)
            else:
                post(ledger)
        if cancelled:
            ledger.cancel(cancelled)
            self._make_room()
        if self._ended is not None:
            self._give_up(self._ended)
        else:
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._closing and self._ledger.is_idle and not self._intake:
            self._idle.set()

    async def _run(self) -> None:
        try:
            async with aiohttp.ClientSession() as session:
                while not self._idle.is_set():
                    socket = await self._dialer.dial(session, self._patience, self._is_unwanted)
                    if self._ledger.watch is None:
                        self._is_ready()
                    try:
                        await self._converse(socket)
                    finally:
                        await socket.close()
                    if not self._idle.is_set():
                        log.info("connection to the service lost, reconnecting")
        except UponError as error:
            self._end(error)
        except Exception as error:
            log.exception("the connection's loop failed")
            self._end(ServiceError(f"the connection to the service failed: {type(error).__name__}: {error}"))
        finally:
            with self._room:
                self._ended = self._ended or ServiceUnavailable("the connection is closed")
            self._take_in()
            self._background.at_exit.discard(self._finish)
            self._delivery.close()

    def _is_unwanted(self) -> bool:
        """Whether nobody waits any more: without a connection it is not worth one."""
        return self._idle.is_set() or (self._closing and not self._ledger.unfinished)

    def _is_ready(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send and receive until the WebSocket is lost or nothing is left to do."""
        self._ledger.again()
        self._something.set()
        loops = [asyncio.create_task(work) for work in (self._send(socket), self._receive(socket), self._idle.wait())]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in done:
                loop.result()
        except (aiohttp.ClientError, OSError):  # lost: `_run` connects again
            pass
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _send(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            self._take_in()
            while (frame := self._ledger.next_frame()) is not None:
                await socket.send_bytes(encode_frame(frame))

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                break
            self._received(decode_from_service(message.data))
            del message  # not to keep the last results while nothing comes

    def _received(self, frame: FromService) -> None:
        match frame:
            case Results():
                self._delivery.begun(self._ledger.begun(frame.started))
                self._delivery.results(self._ledger.results(frame.results))
            case Done():
                self._refused_since = 0.0
                if isinstance(self._ledger.done(frame.request), Watch):
                    self._is_ready()
                self._make_room()
                self._something.set()
            case Refused():
                self._refused(frame)
                self._something.set()
            case _:
                if self._on_pushed is not None:
                    self._on_pushed(frame)
        self._end_if_idle()

    def _refused(self, frame: Refused) -> None:
        refusal, error = self._ledger.refused(frame.request, frame.problem), raised(frame.problem)
        if refusal.passes:
            self._refused_since = self._refused_since or time.monotonic()
            asyncio.get_running_loop().call_later(RETRY, self._retry)
            hopeless = time.monotonic() - self._refused_since > self._patience
        else:
            hopeless = isinstance(refusal.frame, Attach | Watch)
        if hopeless:
            self._end(error)
        self._delivery.failure(refusal.waiters, error)
        self._make_room()

    def _retry(self) -> None:
        self._ledger.retry()
        self._something.set()

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _end(self, error: UponError) -> None:
        """Give the connection up: all waiters fail, and whoever submits from now on."""
        if not self._opened.done():
            self._opened.set_exception(error)
        self._give_up(error)
        self._idle.set()
        if self._on_end is not None:
            self._on_end(error)

    def _give_up(self, error: UponError) -> None:
        self._ended = error
        self._delivery.failure(self._ledger.abandon(), error)
        self._make_room()

    async def _closed(self) -> None:
        await asyncio.wait([self._runner])

    async def _finish(self) -> None:
        """At the interpreter's exit: see that what was submitted is accepted, then leave."""
        deadline = time.monotonic() + EXIT_GRACE
        self._woken()
        while not self._ledger.is_accepted and not self._runner.done():
            if time.monotonic() > deadline:
                log.warning("upon: left before the service had accepted all tasks for site %s", self._ledger.site)
                break
            await asyncio.sleep(0.005)
        self._runner.cancel()
        await asyncio.wait([self._runner])

    def _make_room(self) -> None:
        if self._waiting:
            with self._room:
                self._room.notify_all()
