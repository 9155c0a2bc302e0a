"""Whose turn it is to change the registry: of several services only one at a time.

Version numbers are given by whoever writes, from what stands in the registry. So a change is: take the turn, read the
registry up to its end, decide, write, wait for Kafka, give the turn back. The turn is a lock that dies with its holder:

    PostgreSQL   an advisory lock of the session, so of all services that share the task store's database
    SQLite       a lock on a file beside it (flock), so of all services that share the folder

Not here: services that share neither a database nor a folder. They must not serve one Kafka prefix both.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from upon.errors import ServiceUnavailable

WAIT = 30.0
"""Seconds that a change waits for its turn: another service may be waiting for Kafka."""
_LOCK = 0x75706F6F  # PostgreSQL's advisory lock of whoever changes the registry


class Turn:
    """The turn among the services that share a task store.

    Args:
        engine: of the task store.
        file: the SQLite file; None: the engine is PostgreSQL's, or the store is in memory.
    """

    def __init__(self, engine: Engine, file: Path | None) -> None:
        self._engine, self._file = engine, file

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Hold the turn. The caller lets only one at a time in within this process.

        Raises:
            ServiceUnavailable: the database does not answer, or another service does not give the turn back.
        """
        taking = asyncio.ensure_future(asyncio.to_thread(self._take))
        try:
            held = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(_give_back)  # nobody waits for it any more
            raise
        try:
            yield
        finally:
            await asyncio.shield(asyncio.to_thread(held.close))

    def _take(self) -> ExitStack:
        with ExitStack() as stack:
            if self._engine.dialect.name == "postgresql":
                self._take_advisory(stack)
            elif self._file is not None:
                _take_file(self._file.with_name("registry.lock"), stack)
            return stack.pop_all()

    def _take_advisory(self, stack: ExitStack) -> None:
        try:
            connection = stack.enter_context(self._engine.connect().execution_options(isolation_level="AUTOCOMMIT"))
            stack.callback(connection.invalidate)  # the session ends, and its lock with it
            connection.execute(text(f"SET lock_timeout = {int(WAIT * 1000)}"))
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        except SQLAlchemyError as error:
            said = " ".join(str(getattr(error, "orig", None) or error).split())
            raise ServiceUnavailable(f"the registry cannot be changed now: the task store says: {said}") from error


def _take_file(path: Path, stack: ExitStack) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, file)
    give_up = time.monotonic() + WAIT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > give_up:
                raise ServiceUnavailable(f"another service holds {path}: the registry cannot be changed now") from error
            time.sleep(0.02)


def _give_back(taking: asyncio.Future[ExitStack]) -> None:
    if not taking.cancelled() and taking.exception() is None:
        asyncio.get_running_loop().run_in_executor(None, taking.result().close)
