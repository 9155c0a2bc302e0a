"""Standing by until a site is to be had, claiming it, and noticing that another has: the I/O around `tenure`.

    stand_by() ──▶ Term: this dispatcher is the active one
    superseded(term), on_change ──▶ … until another claims the site

Guarantee: between the read that found the site vacant and the claim's own place in the log nothing is missed, for both
stand in one partition. Not here: what an active dispatcher does (`upon.dispatcher.dispatcher`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from upon import processes
from upon.dispatcher.tenure import LOOK_EVERY, Tenure, Term
from upon.errors import InputError
from upon.ids import new_id
from upon.kafka.answers import is_ready
from upon.kafka.follow import follow
from upon.kafka.outbox import Outbox
from upon.logs import get_logger
from upon.messages import SiteStatus, decode, encode
from upon.topics import Topics, TopicSpec

log = get_logger(__name__)


def myself(site: str, term: Term) -> SiteStatus:
    """Return a status that says whose term has begun, and nothing of its managers yet."""
    return SiteStatus(
        site=site,
        pid=os.getpid(),
        host=socket.gethostname(),
        at=time.time_ns(),
        epoch=term.epoch,
        session=term.session,
        process=processes.myself(),
        closed=term.closed,
    )


class Candidate:
    """A dispatcher of a site, active or not.

    Args:
        kafka, topics, site: where, and for what.
        outbox: started.

    Attributes:
        on_change: called when something was read of this site.
    """

    def __init__(self, kafka: str, topics: Topics, site: str, outbox: Outbox) -> None:
        self._kafka, self._topics, self._site, self._outbox = kafka, topics, site, outbox
        self._tenure = Tenure(socket.gethostname(), lambda name: processes.alive(name) is not None)
        self._caught_up, self._news = asyncio.Event(), asyncio.Event()
        self.on_change: Callable[[], None] = self._news.set

    async def follow(self, spec_of: Callable[[str], TopicSpec | None]) -> None:
        """Read what is said of the site, for as long as this dispatcher runs."""
        await follow(
            self._kafka,
            f"upon-dispatcher-{self._site}-sites",
            [self._topics.sites],
            self._take,
            caught_up=self._caught_up,
            spec_of=spec_of,
        )

    async def stand_by(self, waits: Callable[[], None]) -> Term:
        """Wait until the site is to be had, and return with it.

        Args:
            waits: called once if another has it.
        """
        await self._caught_up.wait()
        waiting = False
        while True:
            if (why := self._tenure.vacancy()) is not None:
                term = await self._claim(contested=why == "silent")
                if self._tenure.holds(term):
                    return term
            if not waiting:
                waiting = True
                waits()
            await self._look()

    def superseded(self, term: Term) -> SiteStatus | None:
        """Return who has taken over after a term; None: nobody."""
        return None if self._tenure.holds(term) else self._tenure.last

    async def _claim(self, *, contested: bool) -> Term:
        term = Term(self._tenure.next_epoch(time.time_ns() // 1_000_000), new_id(), contested, self._tenure.closed)
        if contested and (last := self._tenure.last) is not None:
            log.warning(
                f"the site's dispatcher ({last.host}, pid {last.pid}) is silent: this one takes over",
                action="take_over",
                site=self._site,
                epoch=term.epoch,
            )
        await self._outbox.put(self._topics.sites, encode(myself(self._site, term)), self._site.encode())
        while not self._tenure.decided(term):
            self._news.clear()
            await self._news.wait()
        return term

    async def _look(self) -> None:
        """Until something is read, or `LOOK_EVERY` s have passed: then see that Kafka is there."""
        self._news.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), LOOK_EVERY)
            return
        self._tenure.looked(await asyncio.to_thread(is_ready, self._kafka))

    def _take(self, record: Any) -> None:
        try:
            status = decode(record.value or b"", SiteStatus)
        except InputError as error:
            log.warning(f"a record of the sites was passed over: {error}", action="follow", offset=record.offset)
            return
        if status.site == self._site:
            self._tenure.heard(status)
            self._news.set()
            self.on_change()
