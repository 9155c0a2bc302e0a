"""The bearer token: required on every route but those marked open, the WebSocket included."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from upon.errors import NotAuthenticated

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bearer(token: str, open_paths: frozenset[str]) -> Any:
    """Return the middleware that lets only requests with `token` through."""
    wanted = token.encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in open_paths:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not given:
                raise NotAuthenticated("no token: send the header `Authorization: Bearer TOKEN`, from the profile")
            if not hmac.compare_digest(given.strip().encode(errors="surrogateescape"), wanted):
                raise NotAuthenticated("wrong token: `upon up` writes the right one into the profile of UPON_HOME")
        return await handler(request)

    return check
