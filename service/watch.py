"""What watchers see: events as they pass, tasks as they change. For people; nothing depends on it.

Events are consumed only while somebody watches. Each watcher has a bounded queue of its own: one that is too slow
misses some and is told how many; it holds up nobody.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from upon import api
from upon.events import Event, read_record
from upon.kafka.reader import from_the_end, reading
from upon.logs import get_logger
from upon.service.guard import forever
from upon.service.rest.views import whole_task
from upon.service.store.projection import Changes
from upon.service.store.queries import get_tasks
from upon.service.store.store import Store
from upon.topics import Topics

MAX_CHANGES = 1_000
"""Tasks looked up at once for watchers; of more that change at once the first are missed."""
log = get_logger(__name__)


class Watcher(Protocol):
    """A connection that shows events or tasks."""

    def show(self, frame: api.EventSeen | api.TaskChanged) -> None:
        """Queue a frame or count it as missed; must not block and must not raise."""

    def missed(self, kind: type[api.EventSeen | api.TaskChanged], count: int) -> None:
        """Count frames that were left out."""


class Watch:
    """Shows events and task changes to watchers.

    Args:
        kafka: bootstrap address.
        topics: the deployment's topics.
        store: where changed tasks are read.
    """

    def __init__(self, kafka: str, topics: Topics, store: Store) -> None:
        self._kafka, self._topics, self._store = kafka, topics, store
        self._of_events: set[Watcher] = set()
        self._of_tasks: set[Watcher] = set()
        self._consuming: asyncio.Task[None] | None = None
        self._assigned = asyncio.Event()
        self._changed: list[str] = []
        self._some = asyncio.Event()

    async def add(self, watcher: Watcher, *, events: bool, tasks: bool) -> None:
        """Show events or tasks to a watcher from now on; returns once nothing that happens is left out."""
        if tasks:
            self._of_tasks.add(watcher)
        if events:
            self._of_events.add(watcher)
            if self._consuming is None:
                self._assigned.clear()
                self._consuming = asyncio.create_task(forever("watch events", self._consume))
            await self._assigned.wait()

    def remove(self, watcher: Watcher) -> None:
        """Show nothing more to a watcher."""
        self._of_tasks.discard(watcher)
        self._of_events.discard(watcher)
        if not self._of_events and self._consuming is not None:
            self._consuming.cancel()
            self._consuming = None

    def changed(self, changes: Changes) -> None:
        """Take note of tasks that changed in the store (a listener of the projector)."""
        if not self._of_tasks or not (ids := changes.ids()):
            return
        self._changed += ids
        if (left_out := len(self._changed) - MAX_CHANGES) > 0:
            del self._changed[:left_out]
            for watcher in self._of_tasks:
                watcher.missed(api.TaskChanged, left_out)
        self._some.set()

    async def run(self) -> None:
        """Look up what changed and show it, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            ids, self._changed = list(dict.fromkeys(self._changed)), []
            for row in await self._store.read(get_tasks, ids):
                task = whole_task(row)
                for watcher in list(self._of_tasks):
                    watcher.show(api.TaskChanged(task=task))

    async def _consume(self) -> None:
        topic = self._topics.events
        async with reading(
            self._kafka, "upon-service-watch", [topic], start=from_the_end, spec_of=self._topics.spec_of
        ) as reader:
            self._assigned.set()
            while True:
                for records in await reader.next(5.0):
                    for record in records:
                        for event in read_record(record.value, record.headers):
                            if isinstance(event, Event):  # what is none, the stream workers bury
                                self._show(event)

    def _show(self, event: Event) -> None:
        seen = event.to_dict()
        for watcher in list(self._of_events):
            watcher.show(api.EventSeen(event=seen))
