"""Opening the WebSocket: attempts with growing pauses until a deadline, and which answers end them at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import aiohttp

from upon.errors import UponError
from upon.sdk.target import Target, describe

CONNECT = 5.0
"""Seconds of attempts before a service that never answered counts as not running."""
ATTEMPT = 5.0
"""Seconds that one attempt may take."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between attempts: doubled each time, half of it random."""
HEARTBEAT = 20.0
"""Seconds between pings; half of it without an answer and the connection counts as lost."""
STEADY = 5.0
"""Seconds after which a connection counts as good, and the next attempt comes at once."""

Socket = aiohttp.ClientWebSocketResponse


class Dialer:
    """Opens WebSockets to the service, wherever it is by then.

    Args:
        find: returns where the service is; asked at each attempt.
    """

    def __init__(self, find: Callable[[], Target]) -> None:
        self._find = find
        self._target: Target | None = None
        self._pause = FIRST_PAUSE
        self._began = 0.0
        self._random = random.Random()  # not the shared one: a user's seed is theirs

    async def dial(self, session: aiohttp.ClientSession, patience: float, unwanted: Callable[[], bool]) -> Socket:
        """Return an open WebSocket.

        Args:
            session: makes the connection.
            patience: s of attempts; before the first success at most `CONNECT` counts.
            unwanted: tells that nobody needs the connection any more.

        Raises:
            ServiceUnavailable: nobody answered in time; before the first success also: no address is known, or
                something else than an Upon service answers.
            NotAuthenticated: the token is missing or wrong.
            ConfigError: before the first success: profile or address are unreadable.
        """
        first = self._target is None
        deadline = time.monotonic() + (CONNECT if first else patience)
        if time.monotonic() - self._began > STEADY:
            self._pause = FIRST_PAUSE
        elif not first:
            await self._wait()
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
                self._target, self._began = target, time.monotonic()
                return socket
            except aiohttp.WSServerHandshakeError as error:
                if error.status in (401, 403):
                    raise target.not_authenticated() from error
                reason = f"{error.status} {error.message}; is that an Upon service?"
                if error.status < 500 and first:
                    raise target.unavailable(reason) from error
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                reason = describe(error)
            if unwanted() or time.monotonic() + self._pause > deadline:
                raise target.unavailable(reason)
            await self._wait()

    async def _wait(self) -> None:
        await asyncio.sleep(self._pause * self._random.uniform(0.5, 1.0))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _found(self) -> Target:
        """Return where the service is now; after a success a profile that cannot be read counts as unchanged."""
        try:
            return self._find()
        except UponError:
            if self._target is None:
                raise
            return self._target
