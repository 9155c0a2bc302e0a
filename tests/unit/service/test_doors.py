"""Connections that say nothing, on a real server: nobody else waits for them."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tests.services import eventually
from upon.service.doors import Doors, DoorSite
from upon.service.rest.problems import problems


@asynccontextmanager
async def serving(doors: Doors) -> AsyncIterator[str]:
    go = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def slow(request: web.Request) -> web.Response:
        await asyncio.wait_for(go.wait(), 30)
        return web.Response(text="slow")

    async def let_go(request: web.Request) -> web.Response:
        go.set()
        return web.Response(text="went")

    app = web.Application(middlewares=[problems, doors.middleware])
    app.router.add_get("/", answer)
    app.router.add_post("/", answer)
    app.router.add_get("/slow", slow)
    app.router.add_get("/go", let_go)
    runner = web.AppRunner(app, auto_decompress=False)
    await runner.setup()
    site = DoorSite(runner, "127.0.0.1", 0, doors)
    watching = asyncio.create_task(doors.watch())
    try:
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        watching.cancel()
        await runner.cleanup()


def silent(url: str, said: bytes = b"") -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(said)
    connection.setblocking(False)
    return connection


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def all_closed(connections: list[socket.socket]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return all(map(is_closed, connections))

    return ask


async def test_connections_that_say_nothing_are_closed_and_take_nobodys_place() -> None:
    doors = Doors(limit=8, patience=0.5)
    async with serving(doors) as url, aiohttp.ClientSession() as client:
        part = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le"
        idle = [silent(url, part if n % 2 else b"") for n in range(50)]
        async with client.get(url) as answer:
            assert await answer.text() == "0"
        assert len(doors) <= 8
        await eventually(all_closed(idle), "all are closed")
        async with client.get(url) as answer:
            assert answer.status == 200


async def test_a_request_that_is_being_answered_keeps_its_connection() -> None:
    doors = Doors(limit=4, patience=0.2)
    async with serving(doors) as url, aiohttp.ClientSession() as client:
        waiting = asyncio.create_task(client.get(f"{url}/slow"))

        async def busy() -> bool:
            return len(doors) == 1 and not waiting.done()

        await eventually(busy, "the slow request is there")
        idle = [silent(url) for _ in range(20)]
        async with client.get(f"{url}/go") as answer:
            assert answer.status == 200
        assert await (await waiting).text() == "slow"
        for connection in idle:
            connection.close()


async def test_a_compressed_body_is_refused_unread() -> None:
    async with serving(Doors(limit=4)) as url, aiohttp.ClientSession() as client:
        bomb = gzip.compress(b" " * 100_000_000)
        async with client.post(url, data=bomb, headers={"Content-Encoding": "gzip"}) as answer:
            assert answer.status == 400
            assert "'gzip' is not taken: send it as it is" in (await answer.json())["message"]
