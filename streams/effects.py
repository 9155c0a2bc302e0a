"""What records of `upon.events` cause, on its way to Kafka: invocations at their sites, dead letters; and what is done.

    Work ─▶ fire ─▶ lane of the site ─────┐
      │ └─▶ bury ─▶ lane of dead letters ─┴─▶ settled, one by one ─▶ the last: the record's offset may be committed

Guarantee: a record is done only when all of its effects are in Kafka, or what Kafka will never take of them (a site
that is not known and has no topic, an invocation over the size of a record) is in the dead letters with its reason.
Not here: what a record causes (`upon.streams.reactions`), reading and committing (`upon.streams.agents`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from upon.deadletters import Received, alone, letter, without_record
from upon.errors import PayloadTooLarge
from upon.kafka.batches import Entry, Lane, Place
from upon.kafka.forms import WHOLE, invocation_entry, invocations_lane
from upon.kafka.offsets import Offsets
from upon.kafka.outbox import Outbox
from upon.logs import get_logger
from upon.messages import MAX_DESCRIPTION, DeadLetter, encode
from upon.streams.choices import Choices
from upon.streams.reactions import PRINCIPAL, Fired, Reaction
from upon.streams.rules import ACTION
from upon.topics import Topics

log = get_logger(__name__)


KEPT = 16 * 1024 * 1024
"""Bytes of events that the letters about one record hold together; further ones name its place in Kafka."""


@dataclass(slots=True, eq=False)
class Work:
    """A record in hand: where it stands, and how much of what it causes is not in Kafka yet."""

    partition: Any
    offset: int
    epoch: int
    open: int = 1
    buried: int = 0  # bytes of events in letters


class Effects:
    """The records in hand and what they cause.

    Attributes:
        offsets: up to where each partition is done.
        moved: set when a record is done.
        idle: set while no record is in hand.
    """

    def __init__(self, topics: Topics, choices: Choices, outbox: Outbox) -> None:
        self._topics, self._choices, self._outbox = topics, choices, outbox
        self.offsets: Offsets[Any] = Offsets()
        self.moved, self.idle = asyncio.Event(), asyncio.Event()
        self.idle.set()
        self._epoch = 0
        self._in_hand = 0

    @property
    def epoch(self) -> int:
        """Raised when what is in hand, and what waits, is no longer ours."""
        return self._epoch

    def begin(self, partition: Any, offset: int) -> Work:
        """Take a record, the last that was read of its partition, in hand; `settle` when it has been looked at."""
        self.offsets.open(partition, offset)
        self._in_hand += 1
        self.idle.clear()
        return Work(partition, offset, self._epoch)

    def is_ours(self, work: Work) -> bool:
        """Whether a record is still this worker's to do."""
        return work.epoch == self._epoch

    def disown(self) -> None:
        """What is in hand is no longer ours: whoever has the partitions now reads it again."""
        self._epoch += 1

    async def cause(self, work: Work, record: Received, reactions: Iterator[Reaction], now: int) -> None:
        """Hand over what a record causes, slice by slice, as the outbox has room."""
        for reaction in reactions:
            for fired in await self._at_their_sites(reaction.fired):
                self._fire(work, record, fired, now)
            for about in reaction.letters:
                self._bury(work, about)
            await asyncio.sleep(0)  # others get their turn
            await self._outbox.room()

    async def _at_their_sites(self, fired: Sequence[Fired]) -> Sequence[Fired]:
        """Return what fired, each at the site that its work belongs to for good."""
        proposed = {one.firing.invocation.id: one.firing.site for one in fired if one.firing.open}
        if not proposed:
            return fired
        chosen = await self._choices.settle(proposed, self._outbox)
        sites = [chosen.get(one.firing.invocation.id, one.firing.site) for one in fired]
        return [replace(one, firing=replace(one.firing, site=site)) for one, site in zip(fired, sites, strict=True)]

    def _fire(self, work: Work, record: Received, fired: Fired, now: int) -> None:
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

    def _fired(self, work: Work, record: Received, fired: Fired, outcome: Place | Exception) -> None:
        """Take in that Kafka has an invocation, or never will."""
        if not isinstance(outcome, Place) and self.is_ours(work):
            reason = f"{type(outcome).__name__}: {outcome}"
            log.error("a rule could not fire", action="fire", site=fired.firing.site, error=reason)
            self._bury(work, _undelivered(record, fired, str(outcome), time.time_ns()))
        self.settle(work)

    def _bury(self, work: Work, one: DeadLetter) -> None:
        log.info("dead letter", action="deadletter", id=one.id, origin=one.origin, reason=one.reason)
        work.open += 1
        work.buried += len(one.value)
        if one.event_id and work.buried > max(KEPT, len(one.value)):
            one = without_record(one)
        entry = Entry(encode(one), partial(self._buried, work, one), one.origin.encode())
        try:
            self._outbox.post(Lane(self._topics.deadletter, WHOLE), entry)
        except PayloadTooLarge as error:
            self._buried(work, one, error)

    def _buried(self, work: Work, one: DeadLetter, outcome: Place | Exception) -> None:
        if not isinstance(outcome, Place):
            log.error("a dead letter was refused", action="deadletter", origin=one.origin, error=str(outcome))
        self.settle(work)

    def settle(self, work: Work) -> None:
        """One effect of a record is in Kafka; with the last one the record is done."""
        work.open -= 1
        if work.open:
            return
        self._in_hand -= 1
        if not self._in_hand:
            self.idle.set()
        if self.is_ours(work):
            self.offsets.close(work.partition, work.offset)
            self.moved.set()


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
