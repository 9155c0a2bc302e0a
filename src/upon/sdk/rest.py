"""One request to the service's REST side, answered with a struct of `upon.api` or an error of `upon.errors`.

Guarantee: a request that meets no service, or loses it, is sent again for `patience` seconds. That is safe, because
every request of this SDK may arrive twice: what it creates carries its id, or is named by its content.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from upon.api import Problem, raised
from upon.errors import InputError, ServiceError
from upon.sdk.background import Background, background
from upon.sdk.target import Target, describe

T = TypeVar("T")

ANSWER = 60.0
"""Seconds that the service has to answer one request."""
SHORT = aiohttp.ClientTimeout(total=ANSWER)
LONG = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER, sock_read=ANSWER)
"""For what may take as long as it has bytes."""
JSON = "application/json"
PIECE = 1024 * 1024
"""Bytes of a file that are in memory on their way."""
PAUSE = 0.1
"""Seconds before a request is sent again; doubled up to 1 s."""


def path(*parts: str, **query: Any) -> str:
    """Return ``/v1/parts…?query`` with everything quoted; None is left out of the query, a list is given one by one."""
    given = {name: value for name, value in query.items() if value is not None}
    return (
        "/v1/"
        + "/".join(quote(part, safe="@") for part in parts)
        + (f"?{urlencode(given, doseq=True)}" if given else "")
    )


class Rest:
    """The service's REST side, from any thread.

    Args:
        find: returns where the service is; asked at each attempt.
        patience: s of attempts before the service counts as not running.
    """

    def __init__(self, find: Callable[[], Target], patience: float) -> None:
        self._find, self._patience = find, patience
        self._session: tuple[Background, aiohttp.ClientSession] | None = None

    def ask(self, method: str, where: str, kind: type[T], body: Any = None, *, within: float | None = None) -> T:
        """Send a request and read the answer.

        Args:
            method: GET, POST or DELETE.
            where: from `path`.
            kind: what the answer holds; `None` for nothing.
            body: what to send as JSON.
            within: s after which nobody waits any more (TimeoutError); default none.

        Raises:
            ServiceUnavailable: nobody answers.
            NotAuthenticated: the token is missing or wrong.
            InputError: the body is not JSON data.
            UponError: the service's own answer, as the class it names.
        """
        answer = background().run(self._send(method, where, None if body is None else encoded(body)), within)
        if kind is type(None) or not answer:
            return None  # type: ignore[return-value]
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ServiceError(f"{method} {where}: unknown answer ({error}); are both of one version?") from error

    def download(self, where: str, file: IO[bytes]) -> None:
        """Write what an answer holds into a file, in pieces. Raises as `ask`, and OSError."""
        background().run(self._send("GET", where, None, into=file))

    def upload(self, where: str, file: IO[bytes]) -> None:
        """Send a file, in pieces. Raises as `ask`, and OSError."""
        background().run(self._send("PUT", where, file))

    def close(self) -> None:
        """Close the kept connections; the next request opens new ones."""
        if self._session is not None:
            _close(*self._session)
            self._session = None

    async def _send(
        self, method: str, where: str, data: bytes | IO[bytes] | None, into: IO[bytes] | None = None
    ) -> bytes:
        deadline, pause = time.monotonic() + self._patience, PAUSE
        is_file = into is not None or not isinstance(data, bytes | None)
        while True:
            target = self._find()
            try:
                async with self._open_session().request(
                    method,
                    target.url(where),
                    data=data if isinstance(data, bytes | None) else _pieces(data),
                    headers={**target.headers, "Content-Type": "application/octet-stream" if is_file else JSON},
                    proxy=target.proxy,
                    timeout=LONG if is_file else SHORT,
                ) as response:
                    if response.status < 400 and into is not None:
                        into.seek(0)
                        async for piece in response.content.iter_chunked(PIECE):
                            await asyncio.to_thread(into.write, piece)
                        return b""
                    body = await response.read()
                    if response.status < 400:
                        return body
                    problem = _problem(body)
                    if response.status == 401:
                        raise target.not_authenticated(problem.message if problem else "")
                    if problem is None:
                        raise target.unavailable(f"{response.status} {response.reason}; is that an Upon service?")
                    raise raised(problem)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                if time.monotonic() + pause > deadline:
                    raise target.unavailable(describe(error)) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the session, whose connections are kept open; a forked child makes its own."""
        here = background()
        if self._session is None or self._session[0] is not here:
            session = aiohttp.ClientSession()
            self._session = (here, session)
            here.at_exit.add(session.close)
            weakref.finalize(self, _close, here, session).atexit = False
        return self._session[1]


def _close(here: Background, session: aiohttp.ClientSession) -> None:
    """Close the session of a client that is gone, unless this is a forked child, which must not touch it."""
    if here is not background():
        return
    here.at_exit.discard(session.close)
    asyncio.run_coroutine_threadsafe(session.close(), here.loop)


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, 0)
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


def encoded(body: Any) -> bytes:
    """Return a request's body as JSON. Raises InputError."""
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"not plain JSON data: {error}") from error


def _problem(body: bytes) -> Problem | None:
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
