"""The agent: records of `upon.events`, in order, to what they cause; done when Kafka has that.

    Faust stream ─▶ queue ─▶ react, a slice at a time ─▶ outbox ─▶ settled ─▶ offsets ─▶ commit
                                        ▲ waits for room │  (each destination at its own pace)
                                        └────────────────┘

Records are taken up in order and settle side by side: a lone event leaves at once, under load the outbox gathers what
comes meanwhile, and a site whose topic is away holds up nobody else. Of one worker one record is taken up at a time:
more workers and partitions scale it, Faust's `concurrency` does not.

A record is judged at once, by the rules that the worker knows. It is done only when the registry has been read as far
as it reached after that (`upon.streams.barrier`): rules that Kafka had before the record, and the worker after it, have
their turn then.

Guarantee: a position is committed only after everything that the events below it caused is in Kafka. What Kafka will
never take (a site that is not known and has no topic, an invocation over the size of a record) is in the dead letters
first, with its reason. An unexpected exception ends the worker with nothing committed, so that its replacement reads
the records again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import TopicPartition

from upon.deadletters import Received, only_rule, with_values
from upon.deadletters import received as as_data
from upon.errors import KafkaUnavailable
from upon.kafka.ends import Ends
from upon.kafka.outbox import Outbox
from upon.kafka.places import Places
from upon.kafka.positions import Times
from upon.logs import get_logger
from upon.moments import Moment
from upon.streams.barrier import Again
from upon.streams.commits import Commit
from upon.streams.effects import Effects, Work
from upon.streams.firing import CHAIN_LIMIT
from upon.streams.following import Known
from upon.streams.reactions import Rules, react
from upon.streams.rules import Rule
from upon.topics import Topics

T = TypeVar("T")
COMMIT_INTERVAL = 0.5
"""Seconds between commits while there is something to commit; after a kill so much is processed again."""
MAX_WAITING = 64
"""Records that wait to be taken up, at most."""
MAX_HELD = 10_000
"""Records that are judged and held, at most; more wait to be taken up."""
SETTLED = 0.1
"""Seconds after which the registry shows a record that Kafka stamped before now: what brokers' clocks and copies of a
partition may differ by."""
AGAIN = 0.5
"""Seconds until Kafka is asked again, if it was away."""
ASKED = 10.0
"""Seconds that Kafka has to say how far the registry reaches."""
log = get_logger(__name__)


class EventAgent:
    """What the Faust agent does with its stream, and where it stands.

    Args:
        known: what the worker knows of the world.
        ends, places: ask Kafka how far the registry reaches, and for records again.

    Attributes:
        effects: what the records cause.
    """

    def __init__(
        self,
        topics: Topics,
        known: Known,
        outbox: Outbox,
        ends: Ends,
        places: Places,
        *,
        chain_limit: int = CHAIN_LIMIT,
    ) -> None:
        self.effects = Effects(topics, known.choices, outbox)
        self._catalogue, self._barrier, self._registry_read = known.catalogue, known.barrier, known.registry_read
        self._ends, self._places = ends, places
        self._registry = TopicPartition(topics.registry, 0)
        self._holding, self._released = asyncio.Event(), asyncio.Event()
        self._chain_limit = chain_limit
        self._times: Times[Any] = Times()
        self._waiting: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(MAX_WAITING)
        self._taking = True

    async def run(self, stream: Any) -> None:
        """Take records from a Faust stream, unacknowledged, for `process`."""
        async for event in stream.noack().events():
            if self._taking:
                await self._waiting.put((self.effects.epoch, event.message))

    async def process(self) -> None:
        """Handle the records that `run` takes, for ever."""
        while True:
            epoch, message = await self._waiting.get()
            if epoch == self.effects.epoch and self.effects.offsets.read(message.tp, message.offset):
                await self._handle(message)

    async def _handle(self, message: Any) -> None:
        """Hand over everything that a record causes. It is done when Kafka has all of it."""
        while len(self._barrier) >= MAX_HELD:
            self._released.clear()
            await self._released.wait()
        record = received(message)
        work = self.effects.begin(message.tp, message.offset)
        self._times.read(work.partition, work.offset, record.recorded // 1_000_000)
        rules = await self._catalogue.renewed(record.recorded)
        work.open += 1  # held
        moment = Moment(record.recorded, record.partition, record.offset)
        self._barrier.judged(work, moment, self._catalogue.number)
        self._holding.set()
        await self._judge(work, record, rules)
        self.effects.settle(work)

    async def _judge(self, work: Work, record: Received, rules: Rules) -> None:
        now = time.time_ns()
        reactions = react(record, rules, self._catalogue.registry, now, chain_limit=self._chain_limit)
        await self.effects.cause(work, record, reactions, now)

    async def confirm(self) -> None:
        """Let go of the records that are held, once the registry has been read far enough, for ever."""
        while True:
            await self._holding.wait()
            self._holding.clear()
            mark = self._barrier.mark
            await asyncio.sleep(SETTLED)
            await self._registry_read.reach(await self._registry_end())
            for one in self._barrier.release(mark):
                if one.changes and self.effects.is_ours(one.work):
                    await self._judge_again(one)
                self.effects.settle(one.work)
            self._released.set()
            if len(self._barrier):
                self._holding.set()

    async def _registry_end(self) -> int:
        ends = await _answered(lambda: self._ends.ends([self._registry], ASKED))
        return next(iter(ends.values()), 0)

    async def _judge_again(self, again: Again[Work]) -> None:
        """Judge a record once more, for rules that changed before Kafka had it and that came here after it."""
        work = again.work
        place = TopicPartition(work.partition.topic, work.partition.partition), work.offset
        log.info("a record is judged again: rules had changed before it", action="judge",
                 partition=work.partition.partition, offset=work.offset)  # fmt: skip
        found = await _answered(lambda: self._places.read({place}))
        if place not in found:
            return  # retention was faster
        record = as_data(found[place])
        if (only := only_rule(record.headers)) is None or only in again:
            await self._judge(work, record, _Only(await self._catalogue.renewed(record.recorded), again))

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
            await asyncio.wait_for(self.effects.idle.wait(), timeout)
        except TimeoutError:
            log.debug("records are left for the next worker", action="drain")
            return False
        finally:
            self.effects.disown()
        return True

    def forget(self, partitions: Iterable[Any]) -> None:
        """Forget partitions that are taken away: whoever has them now reads on from the last commit."""
        self.effects.offsets.forget(partitions)
        self._times.forget(partitions)

    async def commit(self, commit: Commit) -> None:
        """Commit what is done, if there is anything new. What Kafka does not take is read again after a restart."""
        if moved := self.effects.offsets.advanced():
            await commit({one: self._times.at(one, offset) for one, offset in moved.items()})

    async def commit_regularly(self, commit: Commit) -> None:
        """Commit every `COMMIT_INTERVAL` while records are done; sleeps while there are none."""
        while True:
            await self.effects.moved.wait()
            self.effects.moved.clear()
            await self.commit(commit)
            await asyncio.sleep(COMMIT_INTERVAL)


@dataclass(frozen=True, slots=True)
class _Only:
    """Those of the rules for which a record is judged again."""

    rules: Rules
    again: Again[Work]

    def match(self, event: Mapping[str, Any], at: int) -> Sequence[Rule]:
        return [one for one in self.rules.match(event, at) if one.name in self.again]


async def _answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what Kafka answers, however long it is away."""
    while True:
        try:
            return await ask()
        except KafkaUnavailable:
            await asyncio.sleep(AGAIN)


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
