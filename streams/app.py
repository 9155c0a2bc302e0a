"""The part `streams`: a Faust app that turns events into invocations. Several workers share the work.

    upon.events ──▶ agent ──▶ upon.invocations.<site>, upon.deadletter
    upon.registry, upon.sites ──▶ catalogue (rules, functions, sites), always followed, never committed
    upon.choices ◀──▶ choices (which of several sites work went to), likewise

Guarantees: the agent begins only when the registry has been read to its end; rules change without a restart; an
event is acknowledged after Kafka has what it caused; when something breaks that cannot be waited out, the part ends
with an error, so that its supervisor starts it again. Not here: what a rule does (`upon.streams.reactions`).

Faust runs inside the part's event loop: no banner, no web server, no signal handlers, no topics of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faust
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as _driver  # noqa: F401  imported now, while Kafka may still be starting

from upon.config import Settings
from upon.errors import KafkaUnavailable
from upon.kafka import settings as kafka_settings
from upon.kafka.admin import ensure_topics
from upon.kafka.clients import async_consumer
from upon.kafka.ends import Ends
from upon.kafka.outbox import Outbox
from upon.kafka.places import Places
from upon.logs import get_logger
from upon.part import Part, client_id
from upon.streams.agents import EventAgent
from upon.streams.catalogue import Catalogue
from upon.streams.commits import committing, correct, watch
from upon.streams.conditions import EVALUATOR
from upon.streams.following import Known, following
from upon.topics import TopicSpec

CLIENT_ID = "upon-streams"
DRAIN_TIMEOUT = 2.0
"""Seconds that a rebalance or a stop waits for the records in hand; less than the session timeout."""
COMMIT_TIMEOUT = 1.0
FAUST_STOP_TIMEOUT = 2.0
SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread must hand on the interpreter. Faust's consumer has a thread of its own: with Python's
5 ms the two wait for each other at each socket call."""
log = get_logger(__name__)


async def main(part: Part, settings: Settings) -> None:
    """Run a stream worker until the part is told to stop.

    Raises:
        KafkaUnavailable: Kafka does not answer, or does not let the worker go on.
    """
    kafka, topics = settings.need_kafka(), settings.topics
    sys.setswitchinterval(SWITCH_INTERVAL)
    EVALUATOR.budget = settings.expression_budget
    await ensure_topics(kafka, topics.shared(settings.partitions), settings.replication)
    async with (
        following(settings, f"{CLIENT_ID}-registry") as (known, keeping_up),
        async_consumer(kafka, f"{CLIENT_ID}-ends") as asking,
        _outbox(settings, known.catalogue) as outbox,
    ):
        ends = Ends(kafka, asking)
        places = Places(kafka, f"{CLIENT_ID}-places", ends)
        agent = EventAgent(topics, known, outbox, ends, places, chain_limit=settings.chain_limit)
        if not await _ready_to_judge(part, known, keeping_up):
            return
        async with _faust(settings, agent) as (app, assigned):
            commits = asyncio.create_task(agent.commit_regularly(committing(app)))
            crashed = asyncio.create_task(app._crashed.wait())
            stopping = asyncio.create_task(part.stopping.wait())
            processing = asyncio.create_task(agent.process())
            sending = asyncio.create_task(outbox.failed())
            confirming = asyncio.create_task(agent.confirm())
            looking = asyncio.create_task(watch(settings, asking, agent.effects.offsets.read_to))
            watched = {processing, commits, crashed, stopping, keeping_up, sending, confirming, looking}
            try:
                await asyncio.wait({*watched, assigned}, return_when=asyncio.FIRST_COMPLETED)
                if assigned.done():
                    part.ready(group=app.conf.id, rules=len(known.catalogue.rules))
                    await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                if not part.stopping.is_set():
                    _raise_what_ended(app, processing, commits, keeping_up, sending, confirming, looking)
                await agent.drain(DRAIN_TIMEOUT, for_good=True)
                await _commit_soon(app, agent)
            finally:
                for task in (processing, commits, crashed, stopping, sending, confirming, looking):
                    task.cancel()


async def _ready_to_judge(part: Part, known: Known, keeping_up: asyncio.Task[None]) -> bool:
    """Compile the rules that are there: before Kafka counts on this worker. False: told to stop meanwhile."""
    compiling = asyncio.create_task(known.catalogue.renewed())
    stopping = asyncio.create_task(part.stopping.wait())
    try:
        await asyncio.wait({compiling, stopping, keeping_up}, return_when=asyncio.FIRST_COMPLETED)
        if keeping_up.done():
            keeping_up.result()
        if compiling.done():
            compiling.result()
        return not stopping.done()
    finally:
        compiling.cancel()
        stopping.cancel()


def _outbox(settings: Settings, catalogue: Catalogue) -> Outbox:
    """The way to Kafka; a topic that is gone is made anew if it is a shared one or that of a known site."""

    def spec_of(topic: str) -> TopicSpec | None:
        site = settings.topics.site_of(topic)
        return settings.spec_of(topic) if site is None or site in catalogue.registry.sites else None

    return Outbox(settings.need_kafka(), CLIENT_ID, spec_of=spec_of, replication=settings.replication)


class _NoTables(TableManager):  # type: ignore[misc]
    """Faust's table manager without tables: its start would wait a second for tables to be declared."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


@asynccontextmanager
async def _faust(settings: Settings, agent: EventAgent) -> AsyncIterator[tuple[Any, asyncio.Future[None]]]:
    """The Faust app, started with its agent; and a future that is done when it has partitions to read."""
    topics = settings.topics
    datadir = Path(settings.home) / "streams"
    datadir.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        **kafka_settings.faust_app(
            settings.need_kafka(), client_id(CLIENT_ID), f"{settings.prefix}.streams", str(datadir)
        ),
        TableManager=_NoTables,
    )
    events = app.topic(
        topics.events, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
    )
    app.agent(events, name="events")(agent.run)
    assigned: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def on_revoked(_app: Any, revoked: Any, **_: Any) -> None:
        await agent.drain(DRAIN_TIMEOUT)
        await _commit_soon(app, agent)
        agent.forget(revoked)

    async def on_assigned(_app: Any, partitions: Any, **_: Any) -> None:
        log.info("partitions assigned", action="rebalance", partitions=sorted(tp.partition for tp in partitions))

    async def on_resumed(_app: Any, **_: Any) -> None:  # Faust seeks to what is committed after this
        await correct(settings, app.conf.id, committing(app))
        if not assigned.done():
            assigned.set_result(None)

    app.on_partitions_revoked.connect(on_revoked, weak=False)
    app.on_partitions_assigned.connect(on_assigned, weak=False)
    app.on_rebalance_complete.connect(on_resumed, weak=False)
    try:
        await app.start()
        yield app, assigned
    finally:
        assigned.cancel()
        try:
            await asyncio.wait_for(app.stop(), FAUST_STOP_TIMEOUT)
        except TimeoutError:
            log.info("Faust did not stop in time, its connections are dropped", action="stop")


async def _commit_soon(app: Any, agent: EventAgent) -> None:
    """Commit what is done, but do not wait for a broker that is away: what is not committed is read again."""
    try:
        await asyncio.wait_for(agent.commit(committing(app)), COMMIT_TIMEOUT)
    except TimeoutError:
        log.info("records will be read again, Kafka did not take their offsets", action="commit")


def _raise_what_ended(app: Any, *others: asyncio.Future[None]) -> None:
    for one in others:
        if one.done() and not one.cancelled() and (error := one.exception()) is not None:
            raise error
    reason = getattr(app, "_crash_reason", None)
    raise KafkaUnavailable(f"Faust gave up ({reason!r}); the worker must be started again") from reason
