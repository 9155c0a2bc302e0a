"""What the requests work with: the running pieces of the service, in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from upon.config import Settings
from upon.kafka.ends import Ends
from upon.kafka.outbox import Outbox
from upon.kafka.places import Places
from upon.service.freeing import Freeing
from upon.service.lag import Lag
from upon.service.output import Outputs
from upon.service.past_events import PastEvents
from upon.service.projector import Projector
from upon.service.push import Hub
from upon.service.registrar import Registrar
from upon.service.store.store import Store
from upon.service.submission import Submission
from upon.service.watch import Watch
from upon.topics import Topics

if TYPE_CHECKING:
    from upon.service.connection import Connection


@dataclass(slots=True)
class Service:
    """The pieces. Each one's file says what it does."""

    settings: Settings
    topics: Topics
    outbox: Outbox
    ends: Ends
    registrar: Registrar
    submission: Submission
    store: Store
    projector: Projector
    hub: Hub
    outputs: Outputs
    watch: Watch
    lag: Lag
    failure: asyncio.Future[None]
    """Fails with what ended one of the pieces unexpectedly: the service then ends, to be started again."""
    places: Places
    past_events: PastEvents
    freeing: Freeing
    connections: set[Connection] = field(default_factory=set)

    def ended(self, task: asyncio.Future[Any]) -> None:
        """Take in that a piece has ended (a done callback)."""
        if not task.cancelled() and (error := task.exception()) is not None and not self.failure.done():
            self.failure.set_exception(error)

    async def unless_failed(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """Wait for this. Raises what ended one of the pieces meanwhile."""
        task = asyncio.create_task(waiting)
        await asyncio.wait({task, self.failure}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        if self.failure.done():
            self.failure.result()


SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
PRINCIPAL = "local"
"""Who acts. There is one token, so there is one principal; identities come later."""
