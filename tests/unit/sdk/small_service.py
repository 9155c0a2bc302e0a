"""A small service on a real socket that speaks `upon.api`, for the SDK's own behaviour when connections break.

It runs functions by itself, at once, in its own process. What it can be told: to die and come back, to go deaf, to
lose acknowledgements, to refuse.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from upon import api, serialize
from upon.embedded.ports import free_port
from upon.errors import NotAuthenticated, UponError
from upon.messages import FunctionCode, Invocation, ItemFailure, Result

TOKEN = "secret"


class SmallService:
    """A service in a thread. What it has accepted and done outlives `stop`, as Kafka would keep it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.codes: dict[str, FunctionCode] = {}
        self.results: dict[str, Result] = {}
        self.received: Counter[str] = Counter()
        self.executed: Counter[str] = Counter()
        self.cancelled: list[str] = []
        self.asked: dict[str, tuple[Invocation, str]] = {}  # id → what was not run at once, and its group
        self.begun: set[str] = set()
        self.answers_spared = True
        self.frames: list[api.FromClient] = []
        self.refuse: Callable[[api.FromClient], UponError | None] = lambda frame: None
        self.acknowledge = True
        self.run = True
        self.push = True
        self._sockets: dict[web.WebSocketResponse, str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connected(self) -> int:
        """How many WebSockets are open."""
        return len(self._sockets)

    def start(self) -> None:
        self._do(self._start())

    def stop(self) -> None:
        self._do(self._stop())

    def drop(self) -> None:
        """Break all connections, without a word."""
        self._do(self._drop())

    def finish(self) -> None:
        """Push all results that are there and were not pushed."""

        async def push() -> None:
            for ws, group in list(self._sockets.items()):
                mine = tuple(result for result in self.results.values() if result.group == group)
                await ws.send_bytes(api.encode_frame(api.Results(results=mine)))

        self._do(push())

    def begin(self, id: str) -> None:
        """Say that a task has begun."""

        async def say() -> None:
            self.begun.add(id)
            for ws in list(self._sockets):
                await ws.send_bytes(api.encode_frame(api.Results(results=(), started=(id,))))

        self._do(say())

    def end(self, id: str) -> None:
        """Run a task that was not run at once, and push its result."""

        async def work() -> None:
            result = self._run(*self.asked.pop(id))
            for ws in list(self._sockets):
                await ws.send_bytes(api.encode_frame(api.Results(results=(result,))))

        self._do(work())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/stream", self._stream)
        app.router.add_get("/v1/sites", self._sites)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def _stop(self) -> None:
        await self._drop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _drop(self) -> None:
        for ws in list(self._sockets):
            transport = ws._req.transport if ws._req is not None else None
            if transport is not None:
                transport.abort()

    async def _sites(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            body = api.problem(NotAuthenticated("no such token"))
            return web.json_response({"error": body.error, "message": body.message, "detail": {}}, status=401)
        return web.json_response([])

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise web.HTTPUnauthorized
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        self._sockets[ws] = ""
        try:
            async for message in ws:
                if message.type is WSMsgType.BINARY:
                    await self._take(ws, api.decode_from_client(message.data))
        except ConnectionError:
            pass
        finally:
            del self._sockets[ws]
        return ws

    async def _take(self, ws: web.WebSocketResponse, frame: api.FromClient) -> None:
        self.frames.append(frame)
        error = self.refuse(frame)
        if error is not None:
            await ws.send_bytes(api.encode_frame(api.Refused(request=frame.request, problem=api.problem(error))))
            return
        found: list[Result] = []
        match frame:
            case api.Register():
                self.codes[frame.code.hash] = frame.code
            case api.Attach():
                self._sockets[ws] = frame.group
                found = [self.results[id] for id in frame.unfinished if id in self.results]
            case api.Submit():
                for one in frame.invocations:
                    if self._is_new(one):
                        found.append(self._run(one, frame.group))
                    else:
                        self.asked[one.id] = (one, frame.group)
            case api.CancelTasks(running=True):
                self.cancelled.extend(frame.ids)
            case api.CancelTasks() if self.answers_spared:
                found = [Result(id=id, status="cancelled") for id in frame.ids if id not in self.begun]
        if self.acknowledge:
            await ws.send_bytes(api.encode_frame(api.Done(request=frame.request)))
        if found and self.push:
            await ws.send_bytes(api.encode_frame(api.Results(results=tuple(found))))

    def _is_new(self, invocation: Invocation) -> bool:
        self.received[invocation.id] += 1
        return self.run and invocation.id not in self.results

    def _run(self, one: Invocation, group: str) -> Result:
        self.executed[one.id] += 1
        common: dict[str, Any] = {"id": one.id, "function": one.function, "group": group, "items": one.items}
        function = serialize.load_function(self.codes[one.code or one.function].body)
        try:
            if one.items:
                value, bad = self._run_items(function, one)
                result = Result(status="succeeded", payload=serialize.dumps(value), bad_items=bad, **common)
            else:
                args, kwargs = serialize.unpack_call(one.payload)
                result = Result(status="succeeded", payload=serialize.dumps(function(*args, **kwargs)), **common)
        except Exception as error:
            result = Result(status="failed", failure=serialize.dump_failure(error, "Traceback: there"), **common)
        self.results[one.id] = result
        return result

    def _run_items(self, function: Callable[..., Any], one: Invocation) -> tuple[list[Any], tuple[ItemFailure, ...]]:
        values: list[Any] = []
        bad = []
        for index, row in enumerate(zip(*serialize.unpack_chunk(one.payload), strict=True)):
            try:
                values.append(function(*row))
            except Exception as error:
                values.append(None)
                bad.append(ItemFailure(index=index, failure=serialize.dump_failure(error, "Traceback: there")))
        return values, tuple(bad)
