"""One client on the WebSocket.

    socket ─▶ read ─▶ incoming (bounded) ─▶ handle, in order ─▶ Kafka, hub, watch
    socket ◀─ send ◀─ answers, results, sightings (bounded) ◀─ acks, hub, watch

Reading goes on while requests wait for Kafka, so pings are answered and submits are pipelined: a `Done` leaves when
its record is in Kafka, whatever was submitted after it. Results that are there travel together in one frame.

Bounds: incoming stops reading; answers over `MAX_ANSWERS` stop handling, and so reading; results over `MAX_OUTGOING`
close the connection (the client attaches again and gets them from the store); sightings for a watcher that is too slow
are left out and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from upon import api
from upon.errors import InputError, ServiceError, UponError
from upon.logs import get_logger
from upon.messages import COALESCE_BYTES
from upon.msgpack_arrays import Elements, array
from upon.service.context import Service
from upon.service.store.queries import MAX_IDS, ended_sizes, get_results, running

MAX_INCOMING = 32 * 1024 * 1024
"""Bytes of frames that wait to be handled; past this the socket is not read."""
MAX_OUTGOING = 64 * 1024 * 1024
"""Bytes of results that wait to be sent; past this the client counts as gone."""
MAX_ANSWERS = 1024 * 1024
"""Bytes of answers that wait to be sent; past this no further request is handled."""
REPLAY_BYTES = 4 * 1024 * 1024
"""Bytes of stored results that are read at once for a client that attaches."""
PATIENCE = 0.5
"""Seconds that a client has to take what waits for it, and then the news that the service stops."""
MAX_BEGUN = 20_000
"""Ids of tasks that have begun that wait to be sent."""
MAX_SIGHTINGS, MAX_SIGHTING_BYTES = 1_000, 8 * 1024 * 1024
"""Events and task changes that wait to be sent; past this they are left out."""
log = get_logger(__name__)


class Connection:
    """A connected client: a `Receiver` of results and a `Watcher`.

    Args:
        service: what requests work with.
        socket: the prepared WebSocket.
        principal: who the client is.
    """

    def __init__(self, service: Service, socket: web.WebSocketResponse, principal: str) -> None:
        self._service, self._socket, self._principal = service, socket, principal
        self._incoming: deque[bytes] = deque()
        self._incoming_bytes = 0
        self._arrived, self._taken = asyncio.Event(), asyncio.Event()
        self._answers: deque[bytes] = deque()
        self._answers_bytes = 0
        self._results: deque[Elements] = deque()
        self._results_bytes = 0
        self._begun: list[str] = []
        self._sightings: deque[bytes] = deque()
        self._sightings_bytes = 0
        self._missed: Counter[type] = Counter()
        self._outgoing, self._sent = asyncio.Event(), asyncio.Event()
        self._groups: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._acks: set[asyncio.Future[None]] = set()
        self._closing = False

    async def run(self) -> None:
        """Serve the client until it, or the service, closes the connection."""
        self._spawn(self._handle_all())
        self._spawn(self._send_all())
        try:
            await self._read_all()
        finally:
            self._closing = True
            self._service.hub.detach(self, self._groups)
            self._service.watch.remove(self)
            for waiting in [*self._tasks, *self._acks]:
                waiting.cancel()

    async def close(self, code: int = WSCloseCode.GOING_AWAY, message: str = "the service stops") -> None:
        """Send what waits, as far as the client takes it within half a second, and close."""
        with contextlib.suppress(TimeoutError):  # the client asks again when it is back
            async with asyncio.timeout(PATIENCE):
                while self._answers or self._results:
                    self._sent.clear()
                    await self._sent.wait()
        with contextlib.suppress(TimeoutError):  # a client that does not read is left; its connection is cut
            async with asyncio.timeout(PATIENCE):
                await self._socket.close(code=code, message=message.encode()[:120], drain=False)
        self._closing = True
        for task in self._tasks:
            task.cancel()

    # ── what the hub and the watch give ───────────────────────────────────────────────────────────────────────────

    def push(self, results: Elements) -> None:
        """Queue results; a client that has not read `MAX_OUTGOING` bytes is disconnected."""
        if self._closing:
            return
        self._results.append(results)
        self._results_bytes += len(results.body)
        self._outgoing.set()
        if self._results_bytes > MAX_OUTGOING:
            self._closing = True
            self._service.hub.detach(self, self._groups)
            self._results.clear()
            self._results_bytes = 0
            log.info("a client does not read its results: disconnected", action="push", groups=sorted(self._groups))
            self._spawn(self._abort("results were not read; attach again"))

    def begun(self, ids: Sequence[str]) -> None:
        """Queue the news that tasks have begun; a client that does not read misses some."""
        if len(self._begun) < MAX_BEGUN:
            self._begun.extend(ids)
            self._outgoing.set()

    def show(self, frame: api.EventSeen | api.TaskChanged) -> None:
        """Queue a sighting, or count it as missed."""
        if len(self._sightings) >= MAX_SIGHTINGS or self._sightings_bytes > MAX_SIGHTING_BYTES:
            self._missed[type(frame)] += 1
            return
        if missed := self._missed.pop(type(frame), 0):
            frame = msgspec.structs.replace(frame, missed=missed)
        data = api.encode_frame(frame)
        self._sightings.append(data)
        self._sightings_bytes += len(data)
        self._outgoing.set()

    def missed(self, kind: type[api.EventSeen | api.TaskChanged], count: int) -> None:
        self._missed[kind] += count

    # ── socket → requests ─────────────────────────────────────────────────────────────────────────────────────────

    async def _read_all(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY:
                await self._socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"frames are binary MessagePack")
                return
            self._incoming.append(message.data)
            self._incoming_bytes += len(message.data)
            self._arrived.set()
            while self._incoming_bytes > MAX_INCOMING and not self._closing:
                self._taken.clear()
                await self._taken.wait()

    async def _handle_all(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._incoming:
                data = self._incoming.popleft()
                await self._handle(data)
                while self._answers_bytes > MAX_ANSWERS:
                    self._sent.clear()
                    await self._sent.wait()
                self._incoming_bytes -= len(data)
                self._taken.set()

    async def _handle(self, data: bytes) -> None:
        try:
            frame = api.decode_from_client(data)
        except InputError as error:
            await self._not_a_frame(data, error)
            return
        try:
            match frame:
                case api.Submit():
                    submitting = self._service.submission.submit(
                        frame.site, frame.group, self._principal, frame.invocations
                    )
                    self._answer_when(frame.request, await submitting)
                case api.Register():
                    await self._service.registrar.add_code(frame.code)
                    self._answer(api.Done(request=frame.request))
                case api.Attach():
                    self._attach(frame)
                case api.CancelTasks():
                    self._answer_when(frame.request, await self._cancel(frame))
                case api.Watch():
                    await self._service.watch.add(self, events=frame.events, tasks=frame.tasks)
                    self._answer(api.Done(request=frame.request))
        except UponError as error:
            self._refuse(frame.request, error)
        except Exception as error:
            log.exception("a request failed unexpectedly", action="request", frame=type(frame).__name__)
            self._refuse(frame.request, ServiceError(f"the service failed: {type(error).__name__}: {error}"))

    async def _cancel(self, frame: api.CancelTasks) -> asyncio.Future[None]:
        return await self._service.submission.cancel(frame.site, frame.ids, running=frame.running)

    async def _not_a_frame(self, data: bytes, error: InputError) -> None:
        """Refuse the request if it has a number; a client that speaks something else is disconnected."""
        try:
            request = msgspec.msgpack.decode(data)["request"]
        except Exception:  # whatever it is, it is no map with a request
            request = None
        if isinstance(request, int):
            self._refuse(request, error)
        else:
            await self._socket.close(code=WSCloseCode.INVALID_TEXT, message=str(error).encode()[:120])

    def _attach(self, frame: api.Attach) -> None:
        self._groups.add(frame.group)
        pushed = self._service.hub.attach(frame.group, self)
        self._answer(api.Done(request=frame.request))
        if frame.unfinished:
            self._spawn(self._push_stored(list(frame.unfinished), pushed))

    async def _push_stored(self, ids: list[str], pushed: dict[tuple[str, int], int]) -> None:
        """Push the results that are in the store, then those that were on their way when the client attached."""
        missing = await self._push_found(ids)
        await self._service.projector.reach(pushed, None)
        await self._push_found(missing)

    async def _push_found(self, ids: list[str]) -> list[str]:
        """Push the stored results of `ids`, no faster than the client reads; return the ids that have none."""
        missing: list[str] = []
        for start in range(0, len(ids), MAX_IDS):
            some = ids[start : start + MAX_IDS]
            sizes = dict(await self._service.store.read(ended_sizes, some))
            missing += [id for id in some if id not in sizes]
            self.begun(await self._service.store.read(running, some))
            ended = deque(id for id in some if id in sizes)
            while ended:
                part, size = [ended[0]], sizes[ended.popleft()]
                while ended and size + sizes[ended[0]] <= REPLAY_BYTES:
                    size += sizes[ended[0]]
                    part.append(ended.popleft())
                while self._results_bytes > REPLAY_BYTES:
                    self._sent.clear()
                    await self._sent.wait()
                found = await self._service.store.read(get_results, part)
                self.push(Elements(len(found), b"".join(found)))
        return missing

    # ── answers → socket ──────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, frame: api.FromService) -> None:
        data = api.encode_frame(frame)
        self._answers.append(data)
        self._answers_bytes += len(data)
        self._outgoing.set()

    def _refuse(self, request: int, error: UponError) -> None:
        self._answer(api.Refused(request=request, problem=api.problem(error)))

    def _answer_when(self, request: int, ack: asyncio.Future[None]) -> None:
        """Answer a request once Kafka has all its records; when the client is gone, what has not left is dropped."""

        def acked(ack: asyncio.Future[None]) -> None:
            self._acks.discard(ack)
            if ack.cancelled():
                return
            error = ack.exception()
            if isinstance(error, UponError):
                self._refuse(request, error)
            elif error is None:
                self._answer(api.Done(request=request))

        self._acks.add(ack)
        ack.add_done_callback(acked)

    async def _send_all(self) -> None:
        while True:
            await self._outgoing.wait()
            self._outgoing.clear()
            while (data := self._next_frame()) is not None:
                await self._socket.send_bytes(data)
                self._sent.set()

    def _next_frame(self) -> bytes | None:
        if self._answers:
            data = self._answers.popleft()
            self._answers_bytes -= len(data)
            return data
        if self._results or self._begun:
            some: list[Elements] = []
            size = 0
            while self._results and (not some or size + len(self._results[0].body) <= COALESCE_BYTES):
                some.append(self._results.popleft())
                size += len(some[-1].body)
            self._results_bytes -= size
            begun, self._begun = tuple(self._begun), []
            return api.encode_frame(api.ResultsAsTheyStand(results=msgspec.Raw(array(some)), started=begun))
        if self._sightings:
            data = self._sightings.popleft()
            self._sightings_bytes -= len(data)
            return data
        return None

    # ── tasks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _abort(self, why: str) -> None:
        await self._socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=why.encode(), drain=False)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None or isinstance(error, ConnectionError):
            return
        log.error("a connection failed", action="stream", exc_info=error)
        self._closing = True
        self._spawn(self._abort("the service failed; attach again"))
