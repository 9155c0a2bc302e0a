"""The agent: each record of `upon.events`, in order, to the records it causes; done when Kafka has them.

    record ─▶ react ─▶ outbox.send ─▶ offsets.done ─▶ committed by `commit_regularly`

One record at a time per worker: more workers and partitions scale it, `concurrency` does not (Faust commits past
events in flight). Guarantee: an event's offset is committed only after everything it caused is in Kafka. An
unexpected exception ends the worker, with nothing committed, so that its replacement reads the record again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import Any

from upon.logs import get_logger
from upon.messages import DeadLetter, InvocationBatch, encode
from upon.streams.catalogue import Catalogue
from upon.streams.deadletters import Received, letter
from upon.streams.offsets import Offsets
from upon.streams.outbox import Outbox, Outgoing, Refused
from upon.streams.reactions import Reaction, react
from upon.topics import Topics

COMMIT_INTERVAL = 0.5
"""Seconds between commits while there is something to commit; after a kill so much is processed again."""
log = get_logger(__name__)

Commit = Callable[[Mapping[Any, int]], Awaitable[bool]]


class EventAgent:
    """What the Faust agent does with each event of its stream.

    Attributes:
        offsets: up to where each partition is done.
        failed: set with the exception that ended the agent.
    """

    def __init__(self, topics: Topics, catalogue: Catalogue, outbox: Outbox) -> None:
        self._topics, self._catalogue, self._outbox = topics, catalogue, outbox
        self.offsets: Offsets[Any] = Offsets()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.moved = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    async def run(self, stream: Any) -> None:
        """Process a Faust stream of raw records; ends only by being cancelled."""
        try:
            await self._process(stream.noack().events())
        except Exception as error:
            if not self.failed.done():
                self.failed.set_exception(error)
            raise

    async def _process(self, events: AsyncIterable[Any]) -> None:
        async for event in events:
            if self._draining:
                continue
            message = event.message
            self._idle.clear()
            try:
                await self.handle(received(message))
                self.offsets.done(message.tp, message.offset)
                self.moved.set()
            finally:
                self._idle.set()

    async def handle(self, record: Received) -> None:
        """Return when Kafka has everything that `record` causes."""
        reaction = react(record, self._catalogue.matcher, self._catalogue.registry, time.time_ns())
        outgoing = self._outgoing(reaction)
        if not outgoing:
            return
        refused = await self._outbox.send(outgoing)
        if refused:
            await self._bury(record, reaction, refused)
        _report(record, reaction)

    def _outgoing(self, reaction: Reaction) -> list[Outgoing]:
        return [self._invocations(batch) for batch in reaction.batches] + [
            self._letter(one) for one in reaction.letters
        ]

    def _invocations(self, batch: InvocationBatch) -> Outgoing:
        return Outgoing(self._topics.invocations(batch.site), batch.invocations[0].code.encode(), encode(batch))

    def _letter(self, one: DeadLetter) -> Outgoing:
        return Outgoing(self._topics.deadletter, one.origin.encode(), encode(one))

    async def _bury(self, record: Received, reaction: Reaction, refused: Iterable[Refused]) -> None:
        """Make dead letters of the batches that Kafka will never take."""
        letters = []
        for one in refused:
            if one.index >= len(reaction.batches):
                log.error("a dead letter was refused", action="deadletter", origin=record.origin, error=one.reason)
                continue
            batch = reaction.batches[one.index]
            rules = sorted({invocation.cause.rule for invocation in batch.invocations if invocation.cause})
            reason = f"rule {', '.join(rules)}: site {batch.site}: {one.reason}; `upon sites list` shows what there is"
            letters.append(letter(record, reason, time.time_ns(), about=f"site\x00{batch.site}\x00{one.index}"))
            log.error("a rule could not fire", action="deadletter", origin=record.origin, error=reason)
        await self._outbox.send([self._letter(one) for one in letters])

    async def drain(self, timeout: float) -> None:
        """Take no further record; return when the one in hand is done, or after `timeout` s."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            log.debug("a record is left for the next worker", action="stop")

    async def settle(self, commit: Commit, timeout: float) -> None:
        """Commit what is done before partitions go to another worker; wait for the record in hand, but not long."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
                await self.commit(commit)
        except TimeoutError:
            log.debug("partitions go with a record in hand", action="rebalance")

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
            await self.moved.wait()
            self.moved.clear()
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
        headers=tuple(headers.items() if isinstance(headers, Mapping) else headers),
        recorded=int(message.timestamp * 1000) * 1_000_000 if message.timestamp else 0,
    )


def _report(record: Received, reaction: Reaction) -> None:
    for batch in reaction.batches:
        for invocation in batch.invocations:
            log.debug("rule fired", action="fire", id=invocation.id, site=batch.site, origin=record.origin)
    for one in reaction.letters:
        log.info("dead letter", action="deadletter", id=one.id, origin=one.origin, reason=one.reason)
