"""What the requests work with: the running pieces of the service, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from upon.config import Settings
from upon.service.ends import Ends
from upon.service.lag import Lag
from upon.service.outbox import Outbox
from upon.service.projector import Projector
from upon.service.push import Hub
from upon.service.registrar import Registrar
from upon.service.store import Store
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
    watch: Watch
    lag: Lag
    connections: set[Connection] = field(default_factory=set)


SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
PRINCIPAL = "local"
"""Who acts. There is one token, so there is one principal; identities come later."""
