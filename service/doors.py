"""The service's door: how many connections may be open, and how long one may be open without asking for anything.

    accept ──▶ waiting ──request──▶ busy ──answer──▶ waiting …       waiting for `PATIENCE` before its first request:
                  └── room is needed: the one that has waited longest goes first        closed

Guarantees: connections that say nothing, or a byte now and then, take the place of nobody: they are closed after
`PATIENCE`, and at once when there is no room for a new one; one that is being answered is never closed for another.
Some of the process's file descriptors are always left for Kafka and the task store. A body that comes compressed is
refused before it is read: a few kilobytes may be gigabytes.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from upon.errors import InputError
from upon.logs import get_logger

PATIENCE = 10.0
"""Seconds that a new connection has for the headers of its first request."""
KEPT_ALIVE = 75.0
"""Seconds that a connection is kept open for a further request."""
LOOK_EVERY = 1.0
"""Seconds between two looks at what waits too long."""
MAX_CONNECTIONS = 8192
RESERVED = 256
"""File descriptors that connections never take."""
log = get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class _Visit:
    since: float  # when it last began to wait
    busy: int = 0  # requests being answered
    asked: bool = False  # whether a request ever came


class Doors:
    """Counts the connections of one server and closes those that are in the way.

    Args:
        limit: connections open at once, at most.
        patience: s; default `PATIENCE`.
    """

    def __init__(self, limit: int, patience: float = PATIENCE) -> None:
        self._limit, self._patience = limit, patience
        self._visits: dict[asyncio.Protocol, _Visit] = {}
        self._said_full = False

    def __len__(self) -> int:
        return len(self._visits)

    def admit(self, protocol: Any) -> Any:
        """Take in a connection that was accepted; make room for it, or close it as soon as it is made."""
        loop = asyncio.get_running_loop()
        if len(self._visits) >= self._limit:
            self._forget_closed()
        if len(self._visits) >= self._limit and not self._close_longest_waiting():
            _abort(protocol)
            return protocol
        self._visits[protocol] = _Visit(loop.time())
        return protocol

    async def watch(self) -> None:
        """Close what waits too long, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._forget_closed()
            before = asyncio.get_running_loop().time() - self._patience
            for protocol, visit in list(self._visits.items()):
                if not visit.asked and visit.since < before:
                    self._close(protocol)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Mark a connection as busy while its request is answered."""
        if (encoding := request.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise InputError(f"a body with Content-Encoding {encoding[:40]!r} is not taken: send it as it is")
        visit = self._visits.get(request.protocol)
        if visit is None:
            return await handler(request)
        visit.asked = True
        visit.busy += 1
        try:
            return await handler(request)
        finally:
            visit.busy -= 1
            visit.since = asyncio.get_running_loop().time()

    def _close_longest_waiting(self) -> bool:
        waiting = [(visit.since, id(protocol), protocol) for protocol, visit in self._visits.items() if not visit.busy]
        if not self._said_full:
            self._said_full = True
            log.warning("all connections are taken: those that wait are closed", action="refuse", limit=self._limit)
        if not waiting:
            return False
        self._close(min(waiting)[2])
        return True

    def _close(self, protocol: asyncio.Protocol) -> None:
        self._visits.pop(protocol, None)
        _abort(protocol)

    def _forget_closed(self) -> None:
        closed = [one for one in self._visits if (transport := _transport(one)) is None or transport.is_closing()]
        now = asyncio.get_running_loop().time()
        for protocol in closed:
            # One that was accepted this very moment has no transport yet.
            if _transport(protocol) is not None or self._visits[protocol].since < now - LOOK_EVERY:
                del self._visits[protocol]


class DoorSite(web.TCPSite):
    """An address that is listened at, with doors.

    Args:
        runner: the application's.
        host, port: the address; port 0: any free one.
        doors: what admits connections.
    """

    def __init__(self, runner: web.AppRunner, host: str, port: int, doors: Doors) -> None:
        super().__init__(runner, host, port)
        self._place, self._doors = (host, port), doors

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None  # the runner is set up
        self._server = await asyncio.get_running_loop().create_server(
            lambda: self._doors.admit(server()), *self._place, backlog=1024
        )


def connection_limit() -> int:
    """Return how many connections this process can hold; its limit of file descriptors is raised as far as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(soft // 2, min(soft - RESERVED, MAX_CONNECTIONS))


def _transport(protocol: Any) -> Any:
    return protocol.transport


def _abort(protocol: Any, tries: int = 100) -> None:
    """Close a connection at once; one that is accepted just now, as soon as it is made."""
    if (transport := _transport(protocol)) is not None:
        transport.abort()
    elif tries:
        asyncio.get_running_loop().call_later(0.01, _abort, protocol, tries - 1)
