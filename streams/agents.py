"""The agent: records of `upon.events`, in order, to what they cause; done when Kafka has that.

    Faust stream ─▶ queue ─▶ react, a slice at a time ─▶ outbox ─▶ settled ─▶ offsets ─▶ commit
                                        ▲ waits for room │  (each destination at its own pace)
                                        └────────────────┘

Records are taken up in order and settle side by side: a lone event leaves at once, under load the outbox gathers what
comes meanwhile, and a site whose topic is away holds up nobody else. Of one worker one record is taken up at a time:
more workers and partitions scale it, Faust's `concurrency` does not.

Guarantee: a position is committed only after everything that the events below it caused is in Kafka. What Kafka will
never take (a site that is not known and has no topic, an invocation over the size of a record) is in the dead letters
first, with its reason. An unexpected exception ends the worker with nothing committed, so that its replacement reads
the records again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from upon.deadletters import Received, alone, letter, with_values
from upon.errors import PayloadTooLarge
from upon.kafka.batches import Entry, Lane, Place
from upon.kafka.forms import WHOLE, invocation_entry, invocations_lane
from upon.kafka.offsets import Offsets
from upon.kafka.outbox import Outbox
from upon.kafka.positions import Times
from upon.logs import get_logger
from upon.messages import MAX_DESCRIPTION, DeadLetter, encode
from upon.streams.catalogue import Catalogue
from upon.streams.choices import Choices
from upon.streams.commits import Commit
from upon.streams.firing import CHAIN_LIMIT
from upon.streams.reactions import PRINCIPAL, Fired, react
from upon.streams.rules import ACTION
from upon.topics import Topics

COMMIT_INTERVAL = 0.5
"""Seconds between commits while there is something to commit; after a kill so much is processed again."""
MAX_WAITING = 64
"""Records that wait to be taken up, at most."""
RULES_AT_ONCE = 20
"""Changed rules that are compiled, some 0.3 ms each, before others get their turn."""
log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Work:
    """A record in hand: where it stands, and how much of what it causes is not in Kafka yet."""

    partition: Any
    offset: int
    epoch: int
    open: int = 1


class EventAgent:
    """What the Faust agent does with its stream, and where it stands.

    Attributes:
        offsets: up to where each partition is done.
    """

    def __init__(
        self, topics: Topics, catalogue: Catalogue, choices: Choices, outbox: Outbox, *, chain_limit: int = CHAIN_LIMIT
    ) -> None:
        self._topics, self._catalogue, self._choices, self._outbox = topics, catalogue, choices, outbox
        self._chain_limit = chain_limit
        self.offsets: Offsets[Any] = Offsets()
        self._times: Times[Any] = Times()
        self._waiting: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(MAX_WAITING)
        self._epoch = 0  # raised when what waits is no longer ours
        self._in_hand = 0  # records whose effects are not all in Kafka
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
            epoch, message = await self._waiting.get()
            if epoch == self._epoch and self.offsets.read(message.tp, message.offset):
                await self._handle(message)

    async def _handle(self, message: Any) -> None:
        """Hand over everything that a record causes. It is done when Kafka has all of it."""
        record, now = received(message), time.time_ns()
        work = _Work(message.tp, message.offset, self._epoch)
        self.offsets.open(work.partition, work.offset)
        self._times.read(work.partition, work.offset, record.recorded // 1_000_000)
        self._in_hand += 1
        self._idle.clear()
        catalogue = self._catalogue
        for number, _ in enumerate(catalogue.renew(), 1):
            if number % RULES_AT_ONCE == 0:
                await asyncio.sleep(0)
        for reaction in react(record, catalogue.rules, catalogue.registry, now, chain_limit=self._chain_limit):
            for fired in await self._at_their_sites(reaction.fired):
                self._fire(work, record, fired, now)
            for about in reaction.letters:
                self._bury(work, about)
            await asyncio.sleep(0)  # others get their turn
            await self._outbox.room()
        self._settle(work)

    async def _at_their_sites(self, fired: Sequence[Fired]) -> Sequence[Fired]:
        """Return what fired, each at the site that its work belongs to for good."""
        proposed = {one.firing.invocation.id: one.firing.site for one in fired if one.firing.open}
        if not proposed:
            return fired
        chosen = await self._choices.settle(proposed, self._outbox)
        sites = [chosen.get(one.firing.invocation.id, one.firing.site) for one in fired]
        return [replace(one, firing=replace(one.firing, site=site)) for one, site in zip(fired, sites, strict=True)]

    def _fire(self, work: _Work, record: Received, fired: Fired, now: int) -> None:
        site, invocation = fired.firing.site, fired.firing.invocation
        lane = invocations_lane(
            self._topics.invocations(site), site=site, group="", principal=PRINCIPAL, code=invocation.code
        )
        entry = invocation_entry(invocation, now)
        entry.then = partial(self._fired, work, record, fired)
        work.open += 1
        try:
            if (beside := entry.size - len(invocation.payload)) > MAX_DESCRIPTION:
                raise PayloadTooLarge(
                    f"the event's attributes and the rule's names take {beside:,} bytes of the invocation, the limit "
                    f"is {MAX_DESCRIPTION:,}"
                )
            self._outbox.post(lane, entry)
        except PayloadTooLarge as error:
            self._fired(work, record, fired, error)

    def _fired(self, work: _Work, record: Received, fired: Fired, outcome: Place | Exception) -> None:
        """Take in that Kafka has an invocation, or never will."""
        if not isinstance(outcome, Place) and work.epoch == self._epoch:
            reason = f"{type(outcome).__name__}: {outcome}"
            log.error("a rule could not fire", action="fire", site=fired.firing.site, error=reason)
            self._bury(work, _undelivered(record, fired, str(outcome), time.time_ns()))
        self._settle(work)

    def _bury(self, work: _Work, one: DeadLetter) -> None:
        log.info("dead letter", action="deadletter", id=one.id, origin=one.origin, reason=one.reason)
        work.open += 1
        entry = Entry(encode(one), partial(self._buried, work, one), one.origin.encode())
        try:
            self._outbox.post(Lane(self._topics.deadletter, WHOLE), entry)
        except PayloadTooLarge as error:
            self._buried(work, one, error)

    def _buried(self, work: _Work, one: DeadLetter, outcome: Place | Exception) -> None:
        if not isinstance(outcome, Place):
            log.error("a dead letter was refused", action="deadletter", origin=one.origin, error=str(outcome))
        self._settle(work)

    def _settle(self, work: _Work) -> None:
        """One effect of a record is in Kafka; with the last one the record is done."""
        work.open -= 1
        if work.open:
            return
        self._in_hand -= 1
        if not self._in_hand:
            self._idle.set()
        if work.epoch == self._epoch:
            self.offsets.close(work.partition, work.offset)
            self._moved.set()

    async def drain(self, timeout: float, *, for_good: bool = False) -> bool:
        """Drop what waits, as partitions leave or the worker ends: it is read again from the last commit.

        What is in hand gets `timeout` s to be done; what is not done then is read again as well.

        Args:
            for_good: take nothing any more.

        Returns:
            Whether what was in hand is done.
        """
        self._taking = not for_good
        while not self._waiting.empty():
            self._waiting.get_nowait()
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            log.debug("records are left for the next worker", action="drain")
            return False
        finally:
            self._epoch += 1
        return True

    def forget(self, partitions: Iterable[Any]) -> None:
        """Forget partitions that are taken away: whoever has them now reads on from the last commit."""
        self.offsets.forget(partitions)
        self._times.forget(partitions)

    async def commit(self, commit: Commit) -> None:
        """Commit what is done, if there is anything new. What Kafka does not take is read again after a restart."""
        if moved := self.offsets.advanced():
            await commit({one: self._times.at(one, offset) for one, offset in moved.items()})

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
        recorded=round(message.timestamp * 1000) * 1_000_000 if message.timestamp else 0,
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
