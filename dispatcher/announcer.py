"""What the dispatcher says of its site, to upon.sites: at once who came or went, soon how the load is, and now
and then that it is there.

Not here: who reads it (the service, placement between sites).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from upon.dispatcher.decisions.state import State
from upon.dispatcher.decisions.stragglers import stragglers
from upon.dispatcher.publisher import Publisher
from upon.dispatcher.tenure import SPEAKS_EVERY
from upon.errors import UponError
from upon.logs import get_logger
from upon.messages import ManagerStatus, SiteStatus

log = get_logger(__name__)

MAX_MANAGERS = 2000
"""Managers that are named, at most: those with the most slots."""
MAX_PIDS = 10_000
"""Process ids of workers that are named, at most; past them, none are."""
CHANGES = 1.0
"""Seconds between two announcements when only the load has changed, at least."""


class Announcer:
    """Announces the site.

    Args:
        myself: who says it, of which site.
        state, publisher: what is told, and how.
        wake: called when an announcement is written, for the next may be due.
    """

    def __init__(self, myself: SiteStatus, state: State, publisher: Publisher, wake: Callable[[], None]) -> None:
        self._myself, self._state, self._publisher, self._wake = myself, state, publisher, wake
        self._at = float("-inf")
        self._roster = -1
        self._load: tuple[int, ...] = ()
        self._draining = False
        self._writing: asyncio.Task[None] | None = None

    def deadline(self) -> float:
        """Return when (monotonic s) `announce` has something to say; a change of the roster is due at once."""
        if self._writing is not None and not self._writing.done():
            return float("inf")
        if self._roster != self._state.roster.changes:
            return 0.0
        if self._draining != self._state.draining:
            return 0.0
        return self._at + (CHANGES if self._load != self._now() else SPEAKS_EVERY)

    def announce(self) -> None:
        """Say it, if it is due."""
        if self.deadline() > time.monotonic():
            return
        self._at, self._roster, self._load = time.monotonic(), self._state.roster.changes, self._now()
        self._draining = self._state.draining
        self._writing = asyncio.create_task(self._write(self.status()))

    async def down(self) -> None:
        """Say, as the last thing, that the site is down."""
        if self._writing is not None:
            await self._writing
        await self._publisher.status(self.status("down"))

    def status(self, state: Literal["up", "down"] = "up") -> SiteStatus:
        """Return what there is to say now."""
        book = self._state.book
        managers = bounded(
            ManagerStatus(
                id=m.id,
                host=m.host,
                pid=m.pid,
                workers=m.workers,
                slots=m.slots,
                busy=min(len(m.tasks), m.slots),
                python=m.python,
            )
            for m in book.managers.values()
        )
        running = sum(len(m.tasks) for m in book.managers.values())
        status: SiteStatus = msgspec.structs.replace(
            self._myself,
            at=time.time_ns(),
            state=state,
            managers=managers,
            queued=sum(task.state not in ("assigned", "running", "done") for task in book.tasks.values())
            if len(book.tasks) > running
            else 0,
            running=running,
            stragglers=stragglers(book.managers.values(), self._state.attempts.usual, time.monotonic()),
            draining=self._state.draining,
            closed=self._state.placement.closed,
            remembered=len(self._state.attempts.memo),
            repeated=self._state.attempts.memo.hits,
        )
        return status

    def _now(self) -> tuple[int, ...]:
        """Return numbers that tell cheaply whether the load has changed."""
        return len(self._state.book.tasks), len(self._state.book.ready)

    async def _write(self, status: SiteStatus) -> None:
        try:
            await self._publisher.status(status)
        except UponError as error:
            log.warning(f"the site's status was not written: {error}; the next one follows", action="announce")
        self._wake()


def bounded(managers: Iterable[ManagerStatus]) -> tuple[ManagerStatus, ...]:
    """Return what fits into a record, whatever the size of the site: 2,000 managers are some 300 KB."""
    named = sorted(managers, key=lambda manager: -manager.slots)[:MAX_MANAGERS]
    if sum(len(manager.workers) for manager in named) > MAX_PIDS:
        named = [msgspec.structs.replace(manager, workers=()) for manager in named]
    return tuple(named)
