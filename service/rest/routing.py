"""The form of a route, and reading and writing of bodies. The routes themselves: `routes`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from upon.errors import EventError, InputError, ServiceUnavailable
from upon.events import time_ns
from upon.service.context import SERVICE, Service

B = TypeVar("B")
Handler = Callable[[Service, web.Request], Awaitable[web.StreamResponse]]
MAX_LIMIT = 1000
LOOK_FOR_CLIENT = 0.5
"""Seconds between two looks whether the client of a request that waits is still there."""
BODY_WITHIN = 120.0
"""Seconds that a request's body has to arrive."""

_encode = msgspec.json.Encoder(enc_hook=repr).encode
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter, for `/openapi.json` and for refusing unknown ones."""

    name: str
    description: str
    schema: dict[str, Any]


LIMIT = Query("limit", "how many at most", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50})
SINCE = Query("since", "only from this time on", {"type": "string", "format": "date-time"})
UNTIL = Query("until", "only up to this time", {"type": "string", "format": "date-time"})
AFTER = Query("after", "the next page: the last id of the one before", {"type": "string"})


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    Attributes:
        takes: type of the request's body; None: it has none.
        gives: type of the answer's body; None: not JSON.
        errors: statuses it can fail with, beside 401 and 500.
        open: whether it answers without a token.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    takes: Any = None
    gives: Any = None
    status: int = 200
    queries: tuple[Query, ...] = ()
    errors: tuple[int, ...] = ()
    open: bool = False

    def bound(self) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the handler as aiohttp calls it; it refuses query parameters that the route does not have."""
        known = {query.name for query in self.queries}

        async def handle(request: web.Request) -> web.StreamResponse:
            for name in request.query:
                if name not in known:
                    there = ", ".join(sorted(known)) or "none"
                    raise InputError(f"query parameter {name!r} is not known; there are: {there}")
            return await self.handler(request.app[SERVICE], request)

        return handle


async def read_body(request: web.Request, kind: type[B]) -> B:
    """Return a request's JSON body as `kind`.

    Raises:
        InputError: as `decoded` and `read_bytes`.
    """
    return decoded(await read_bytes(request), kind)


async def read_bytes(request: web.Request) -> bytes:
    """Return a request's body.

    Raises:
        InputError: it did not arrive in time.
    """
    try:
        async with asyncio.timeout(BODY_WITHIN):
            return await request.read()
    except TimeoutError:
        raise InputError(f"body: not all of it arrived within {BODY_WITHIN:.0f} s") from None


def decoded(data: bytes | msgspec.Raw, kind: type[B]) -> B:
    """Return JSON as `kind`.

    Raises:
        InputError: it is not JSON or not of that form; the message names the field.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        body: B = decoder.decode(data)
    except msgspec.ValidationError as error:
        raise InputError(f"body: {_field_first(str(error))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"body: not JSON: {error}") from error
    return body


async def while_connected(request: web.Request, work: Coroutine[Any, Any, None]) -> None:
    """Wait for `work`; cancel it when the client has gone: nobody waits for it, and the client will ask again.

    Raises:
        ServiceUnavailable: the client has gone, so nobody reads this. And what `work` raises.
    """
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_FOR_CLIENT)
            if not task.done() and (request.transport is None or request.transport.is_closing()):
                raise ServiceUnavailable("the client has gone")
    finally:
        if not task.done():
            task.cancel()
    task.result()


def answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    """Return a JSON response."""
    return web.Response(body=_encode(body), status=status, content_type="application/json", headers=headers)


def limit_of(request: web.Request) -> int:
    """Return the `limit` of a listing, 50 if there is none. Raises InputError."""
    text = request.query.get("limit", "50")
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise InputError(f"limit: a number from 1 to {MAX_LIMIT}, not {text[:20]!r}")
    return int(text)


def number_of(request: web.Request, name: str) -> int:
    """Return a query parameter that is a count, 0 if it is not there. Raises InputError."""
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InputError(f"{name}: a number from 0 on, not {text[:20]!r}")
    return int(text)


def flag_of(request: web.Request, name: str) -> bool:
    """Return a query parameter that is true or false, false if it is not there. Raises InputError."""
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise InputError(f"{name}: true or false, not {text[:20]!r}")
    return text == "true"


def moment_of(name: str, text: str | None) -> int | None:
    """Return an RFC 3339 time as ns since the epoch; None if there is none. Raises InputError."""
    if text is None:
        return None
    try:
        return max(0, time_ns(text))
    except (EventError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: {text[:40]!r} is not a time such as 2026-11-21T10:00:00Z") from error


def _field_first(message: str) -> str:
    """Turn msgspec's ``Expected `str`, got `int` - at `$.name` `` into ``name: Expected …``."""
    said, at, path = message.partition(" - at `")
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    return f"{field}: {said}" if at and field else said
