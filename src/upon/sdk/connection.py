"""The WebSocket to the service, over all its losses: one `Connection` stands for one group of waiting futures.

    user's thread ── submit, cancel ──▶ intake ── I/O thread: Ledger ──▶ frames ──▶ service
    user's thread ◀── Future ◀── results thread ◀── results ◀── frames ◀──────────────┘

Guarantees: the service or Kafka may restart and nothing is lost or run twice (`ledger`); whoever submits more than
`MAX_BYTES` ahead of the service waits; whatever is queued leaves in one frame, and nothing waits for company.
A loss is healed quietly for `patience` seconds, then all waiters fail with ServiceUnavailable.
Results are unpickled and callbacks run in a thread of their own. Not here: what frames mean (`ledger`, `upon.api`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

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
from upon.errors import ServiceError, ServiceUnavailable, UponError
from upon.ids import new_id
from upon.messages import FunctionCode, Invocation, Result
from upon.sdk.background import EXIT_GRACE, background
from upon.sdk.ledger import Ledger, size
from upon.sdk.target import Target, describe

CONNECT = 5.0
"""Seconds of attempts before a service that never answered counts as not running."""
PATIENCE = 600.0
"""Seconds of attempts before a service that was there counts as gone."""
ATTEMPT = 5.0
"""Seconds that one attempt may take."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between attempts: doubled each time, half of it random."""
RETRY = 0.5
"""Seconds before a request is sent again that was refused for a reason that passes, such as Kafka restarting."""
HEARTBEAT = 20.0
"""Seconds between pings; half of it without an answer and the connection counts as lost."""
MAX_BYTES = 64 * 1024 * 1024
"""Bytes submitted and not yet in Kafka, past which submit waits."""

log = logging.getLogger(__name__)  # in a user's process: theirs to configure


class Waiter(Protocol):
    """Whoever waits for a result. Both are called in the results thread, at most one of them, once."""

    def resolve(self, result: Result) -> None: ...
    def fail(self, error: BaseException) -> None: ...


Pushed = EventSeen | TaskChanged
_Post = tuple[Invocation, FunctionCode, Waiter] | str | Callable[[Ledger[Waiter]], None]


class Connection:
    """One group's connection to the service. Threads may share it.

    Args:
        find: returns where the service is; asked at each attempt.
        site: where submitted invocations go.
        watch: what to have pushed; see `on_pushed`.
        on_pushed: called with each pushed frame, in the I/O thread.
        on_end: called with the error when the connection is given up, in the I/O thread.
        patience: seconds to heal a loss.
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
    ) -> None:
        self._find, self._patience, self._on_pushed, self._on_end = find, patience, on_pushed, on_end
        self._ledger: Ledger[Waiter] = Ledger(group=new_id(), site=site, watch=watch)
        self._intake: deque[_Post] = deque()
        self._waking = False
        self._taken_bytes = 0
        self._waiting = 0
        self._room = threading.Condition()
        self._arrived: queue.SimpleQueue[list[tuple[Waiter, Result | UponError]] | None] = queue.SimpleQueue()
        self._results_thread: threading.Thread | None = None
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
        self._results_thread = threading.Thread(target=self._resolve_all, name="upon-results", daemon=True)
        self._results_thread.start()

    def submit(self, invocation: Invocation, code: FunctionCode, waiter: Waiter) -> None:
        """Have an invocation run; waits while more than `MAX_BYTES` are ahead of it.

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
        self._wake()

    def _wait_for_room(self) -> None:
        if threading.current_thread() is self._results_thread:
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

    def want(self, task: str, waiter: Waiter) -> None:
        """Ask for the result of a task of any group; it is pushed if the task is done."""
        self._intake.append(lambda ledger: ledger.want([task], [waiter]))
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

    def close(self) -> None:
        """Close once nothing is under way any more; returns at once."""
        self._closing = True
        self._wake()

    @property
    def is_usable(self) -> bool:
        """Whether it is ours and not given up."""
        return self.is_ours and self._ended is None

    @property
    def is_ours(self) -> bool:
        """Whether this process opened it: after a fork the child has to open its own."""
        return self._pid == os.getpid()

    def _wake(self) -> None:
        if not self._waking:
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
        self._waking = False
        self._take_in()
        self._something.set()

    def _take_in(self) -> None:
        """Move what the users' threads posted into the ledger, in order; cancellations in a row together."""
        intake, ledger, cancelled = self._intake, self._ledger, list[str]()
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
        elif self._closing and ledger.is_idle:
            self._idle.set()

    async def _run(self) -> None:
        try:
            deadline = time.monotonic() + CONNECT
            async with aiohttp.ClientSession() as session:
                while not self._idle.is_set():
                    socket = await self._connect(session, deadline)
                    began = time.monotonic()
                    try:
                        await self._converse(socket)
                    finally:
                        await socket.close()
                    if not self._idle.is_set():
                        log.info("connection to the service lost, reconnecting")
                        await asyncio.sleep(max(0.0, FIRST_PAUSE - (time.monotonic() - began)))
                    deadline = time.monotonic() + self._patience
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
            self._arrived.put(None)

    async def _connect(self, session: aiohttp.ClientSession, deadline: float) -> aiohttp.ClientWebSocketResponse:
        """Return an open WebSocket, after as many attempts as `deadline` allows."""
        pause = FIRST_PAUSE
        while True:
            target = self._found()
            try:
                async with asyncio.timeout(ATTEMPT):
                    socket = await session.ws_connect(
                        target.url("/v1/stream"),
                        headers=target.headers,
                        heartbeat=HEARTBEAT,
                        max_msg_size=0,
                        proxy=target.proxy,
                    )
                if self._ledger.watch is None:
                    self._is_ready()
                return socket
            except aiohttp.WSServerHandshakeError as error:
                if error.status in (401, 403):
                    raise target.not_authenticated() from error
                reason = f"{error.status} {error.message}; is that an Upon service?"
                if error.status < 500 and not self._opened.done():
                    raise target.unavailable(reason) from error
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                reason = describe(error)
            if self._idle.is_set() or time.monotonic() + pause > deadline:
                raise target.unavailable(reason)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _is_ready(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _found(self) -> Target:
        """Return where the service is now; once connected, a profile that cannot be read counts as unchanged."""
        try:
            self._target = self._find()
        except UponError:
            if not self._opened.done():
                raise
        return self._target

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
            while (frame := self._ledger.next_frame()) is not None:
                await socket.send_bytes(encode_frame(frame))

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                break
            self._received(decode_from_service(message.data))

    def _received(self, frame: FromService) -> None:
        match frame:
            case Results():
                found = self._ledger.results(frame.results)
                if found:
                    self._arrived.put(found)  # type: ignore[arg-type]
            case Done():
                self._refused_since = 0.0
                if isinstance(self._ledger.done(frame.request), Watch):
                    self._is_ready()
                self._make_room()
                self._something.set()
            case Refused():
                self._refused(frame)
            case _:
                if self._on_pushed is not None:
                    self._on_pushed(frame)
        if self._closing and self._ledger.is_idle and not self._intake:
            self._idle.set()

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
        elif refusal.waiters:
            self._arrived.put([(waiter, error) for waiter in refusal.waiters])
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
        waiters = self._ledger.abandon()
        if waiters:
            self._arrived.put([(waiter, error) for waiter in waiters])
        self._make_room()

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

    # ── in the results thread ─────────────────────────────────────────────────────────────────────────────────────

    def _resolve_all(self) -> None:
        while (batch := self._arrived.get()) is not None:
            for waiter, outcome in batch:
                if isinstance(outcome, Result):
                    waiter.resolve(outcome)
                else:
                    waiter.fail(outcome)
