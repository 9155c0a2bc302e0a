"""The agent: records of `upon.events`, in order, to the records they cause; done when Kafka has those.

    Faust stream ─▶ queue ─▶ all that wait, together: react ─▶ outbox.send ─▶ offsets.done ─▶ commit
                                                      ▲ next ones gather meanwhile  │
                                                      └─────────────────────────────┘

So a lone event leaves at once, and under load one trip to Kafka serves many records. One such trip at a time: more
workers and partitions scale it, `concurrency` does not. Guarantee: an event's offset is committed only after
everything that it caused is in Kafka. An unexpected exception ends the worker with nothing committed, so that its
replacement reads the records again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from upon.deadletters import Received, alone, letter, with_values
from upon.logs import get_logger
from upon.messages import DeadLetter, InvocationBatch, encode
from upon.streams.catalogue import Catalogue
from upon.streams.offsets import Offsets
from upon.streams.outbox import Outbox, Outgoing
from upon.streams.reactions import ACTION, Fired, batches, react
from upon.topics import Topics

COMMIT_INTERVAL = 0.5
"""Seconds between commits while there is something to commit; after a kill so much is processed again."""
MAX_TOGETHER = 64
"""Records that go through one trip to Kafka, at most."""
MAX_TOGETHER_BYTES = 4 * 1024 * 1024
log = get_logger(__name__)

Commit = Callable[[Mapping[Any, int]], Awaitable[bool]]


class EventAgent:
    """What the Faust agent does with its stream, and where it stands.

    Attributes:
        offsets: up to where each partition is done.
    """

    def __init__(self, topics: Topics, catalogue: Catalogue, outbox: Outbox) -> None:
        self._topics, self._catalogue, self._outbox = topics, catalogue, outbox
        self.offsets: Offsets[Any] = Offsets()
        self._waiting: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(MAX_TOGETHER)
        self._epoch = 0  # raised when what waits is no longer ours
        self._taking = True
        self._moved, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()

    async def run(self, stream: Any) -> None:
        """Take records from a Faust stream, unacknowledged, for `process`."""
        async for event in stream.noack().events():
            if self._taking:
                await self._waiting.put((self._epoch, event.message))

    async def process(self) -> None:
        """Handle the records that `run` takes, for ever."""
        while True:
            messages = self._together(await self._waiting.get())
            if not messages:
                continue
            self._idle.clear()
            try:
                await self.handle([received(message) for message in messages])
                for message in messages:
                    self.offsets.done(message.tp, message.offset)
                self._moved.set()
            finally:
                self._idle.set()

    def _together(self, first: tuple[int, Any]) -> list[Any]:
        """Return the first record and those that wait behind it, as far as they are still ours."""
        messages, size = [], 0
        item: tuple[int, Any] | None = first
        while item is not None:
            epoch, message = item
            if epoch == self._epoch:
                messages.append(message)
                size += len(message.value or b"")
            full = len(messages) >= MAX_TOGETHER or size >= MAX_TOGETHER_BYTES
            item = None if full or self._waiting.empty() else self._waiting.get_nowait()
        return messages

    async def handle(self, records: Sequence[Received]) -> None:
        """Return when Kafka has everything that `records` cause."""
        catalogue, now = self._catalogue, time.time_ns()
        reactions = [react(record, catalogue.matcher, catalogue.registry, now) for record in records]
        firings = [one.firing for reaction in reactions for one in reaction.fired]
        letters = [one for reaction in reactions for one in reaction.letters]
        together = batches(firings, now)
        refused = await self._outbox.send([self._invocations(one) for one in together])
        for refusal in refused:
            batch = together[refusal.index]
            ids = {invocation.id for invocation in batch.invocations}
            log.error(
                "rules could not fire", action="fire", site=batch.site, error=refusal.reason, invocations=len(ids)
            )
            letters += [
                _undelivered(record, fired, refusal.reason, now)
                for record, reaction in zip(records, reactions, strict=True)
                for fired in reaction.fired
                if fired.firing.site == batch.site and fired.firing.invocation.id in ids
            ]
        await self._bury(letters)

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        for one in letters:
            log.info("dead letter", action="deadletter", id=one.id, origin=one.origin, reason=one.reason)
        for refused in await self._outbox.send([self._letter(one) for one in letters]):
            one = letters[refused.index]
            log.error("a dead letter was refused", action="deadletter", origin=one.origin, error=refused.reason)

    def _invocations(self, batch: InvocationBatch) -> Outgoing:
        return Outgoing(self._topics.invocations(batch.site), batch.invocations[0].code.encode(), encode(batch))

    def _letter(self, one: DeadLetter) -> Outgoing:
        return Outgoing(self._topics.deadletter, one.origin.encode(), encode(one))

    async def drain(self, timeout: float, *, for_good: bool = False) -> bool:
        """Drop what waits, as partitions leave or the worker ends: it is read again from the last commit.

        Args:
            timeout: s to wait for what is in hand.
            for_good: take nothing any more.

        Returns:
            Whether what was in hand is done.
        """
        self._epoch += 1
        self._taking = not for_good
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            log.debug("records are left for the next worker", action="drain")
            return False
        return True

    async def commit(self, commit: Commit) -> None:
        """Commit what is done, if there is anything new."""
        if pending := self.offsets.pending():
            if await commit(pending):
                self.offsets.committed(pending)
            else:
                self.offsets.forget(pending)

    async def commit_regularly(self, commit: Commit) -> None:
        """Commit every `COMMIT_INTERVAL` while records are done; sleeps while there are none."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            await self.commit(commit)
            await asyncio.sleep(COMMIT_INTERVAL)


def received(message: Any) -> Received:
    """Return a Faust message as data."""
    headers = message.headers or ()
    return Received(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=with_values(headers.items() if isinstance(headers, Mapping) else headers),
        recorded=int(message.timestamp * 1000) * 1_000_000 if message.timestamp else 0,
    )


def _undelivered(record: Received, fired: Fired, reason: str, now: int) -> DeadLetter:
    firing = fired.firing
    rule = firing.invocation.cause.rule if firing.invocation.cause else ""
    return letter(
        alone(record, fired.position, fired.event),
        "streams",
        f"rule {rule}: site {firing.site}: {reason}; `upon sites list` shows what there is",
        now,
        about=str(fired.position),
        rule=rule,
        action=ACTION,
        event_id=fired.event.id,
        function=firing.invocation.function,
        site=firing.site,
    )
