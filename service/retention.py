"""How long what is stored is kept: pruning the task store, and the limits of Kafka's topics.

    tasks        ended ones, by age and by number; what is queued or runs stays
    deadletters  by age and by number
    sites        not heard of for long: no longer listed (their record stays in the compacted topic; it is small)
    code         of functions that nobody registered under a name and no task needs (`upon.service.unused_code`)
    rules        changes that no event can meet which Kafka still has (`upon.service.rule_history`)
    Kafka        events, invocations, results, dead letters: by age and by bytes of each partition

What is pruned is gone for good: Kafka keeps less than the store by default. The limits are settings
(`upon.config`, the settings keep_…). Several services may prune one store; it is pruned in small transactions.
"""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import Connection, Table, and_, delete, or_, select, tuple_
from sqlalchemy.sql.expression import ColumnElement

from upon.config import Settings
from upon.kafka.admin import set_topic_limits
from upon.kafka.ends import Ends
from upon.kafka.places import Places
from upon.logs import get_logger
from upon.messages import FINAL
from upon.service.projector import Projector
from upon.service.registrar import AT_ONCE as RULES_AT_ONCE
from upon.service.registrar import KAFKA_TIMEOUT, Registrar
from upon.service.store.queries import oldest_unfinished
from upon.service.store.store import Store
from upon.service.store.tables import deadletters, generations, tasks
from upon.topics import Topics, kept

EVERY = 600.0
"""Seconds between two rounds."""
AT_ONCE = 500
"""Rows in one transaction: the projection waits no longer than for these."""
PAUSE = 0.05
"""Seconds between transactions."""
log = get_logger(__name__)


class Retention:
    """Prunes a deployment's store, and limits its topics.

    Args:
        settings: how long is kept what.
        store: an open store.
        registrar: knows the sites, which have topics, the code and the rules.
        projector, ends: say whether the store knows of all tasks.
        places: says how old the oldest event is.
    """

    def __init__(  # noqa: PLR0917
        self, settings: Settings, store: Store, registrar: Registrar, projector: Projector, ends: Ends, places: Places
    ) -> None:
        self._settings, self._store, self._registrar = settings, store, registrar
        self._projector, self._ends, self._places = projector, ends, places
        self._topics: Topics = settings.topics

    async def run(self) -> None:
        """Prune now and then, until cancelled."""
        while True:
            await self.limit_topics()
            await self.prune()
            await self._registrar.drop_unused(self._oldest_unfinished)
            await self.prune_rules()
            await asyncio.sleep(EVERY)

    async def limit_topics(self) -> None:
        """Give Kafka's topics their limits, also those that were there before."""
        settings, sites = self._settings, list(self._registrar.registry.sites)
        specs = [*self._topics.shared(), *(spec for site in sites for spec in self._topics.of_site(site))]
        limits = kept(specs, settings.keep_kafka, settings.keep_kafka_bytes)
        for topic in await set_topic_limits(settings.need_kafka(), limits):
            log.info("a topic keeps what the settings say", action="retention", topic=topic, limits=limits[topic])

    async def prune(self) -> None:
        """Prune the store once."""
        settings, now = self._settings, time.time_ns()
        pruned = {
            "tasks": await self._prune(tasks, tasks.c.submitted, settings.keep_tasks, settings.keep_tasks_count, now),
            "deadletters": await self._prune(
                deadletters, deadletters.c.at, settings.keep_deadletters, settings.keep_deadletters_count, now
            ),
        }
        for table, count in pruned.items():
            if count:
                log.info("pruned", action="retention", table=table, rows=count)

    async def prune_rules(self) -> None:
        """Delete what of the rules' history nothing needs any more."""
        if not self._settings.keep_kafka:
            return
        before = time.time_ns() - int(self._settings.keep_kafka * 1e9)
        while await self._registrar.prune_rules(before, self._oldest_event) == RULES_AT_ONCE:
            log.debug("more of the rules' history can go", action="retention")

    async def _oldest_event(self) -> int | None:
        """When Kafka had the oldest event that it still has, ns since the epoch; None: it went while it was asked for.

        A partition is deleted in pieces, a whole one when its youngest record is too old: some outlive the limit.
        """
        partitions = await self._ends.partitions([self._topics.events], KAFKA_TIMEOUT)
        begins = await self._ends.begins(partitions, KAFKA_TIMEOUT)
        ends = await self._ends.ends(partitions, KAFKA_TIMEOUT)
        first = {(one, begins[at]) for one in partitions if begins[at := (one.topic, one.partition)] < ends[at]}
        found = await self._places.read(first)
        if len(found) < len(first):
            return None
        return min((one.timestamp * 1_000_000 for one in found.values()), default=time.time_ns())

    async def _oldest_unfinished(self) -> int:
        """When the oldest task that is not done was submitted, of all that Kafka has now, at all sites."""
        await self._projector.catch_up(set(self._registrar.registry.sites), KAFKA_TIMEOUT)
        return await self._store.read(oldest_unfinished)

    async def _prune(self, table: Table, at: ColumnElement[int], seconds: float, count: int, now: int) -> int:
        before = now - int(seconds * 1e9) if seconds else 0
        total = 0
        while True:
            gone = await self._store.change(lambda c: prune_some(c, table, at, before, count))
            total += gone
            if gone < AT_ONCE:
                return total
            await asyncio.sleep(PAUSE)


def prune_some(connection: Connection, table: Table, at: ColumnElement[int], before: int, count: int) -> int:
    """Delete some rows that are older than `before` (ns) or behind the newest `count` (0 = all stay).

    Returns:
        How many; fewer than `AT_ONCE`: that was all.
    """
    too_old: list[ColumnElement[bool]] = [at < before] if before else []
    if before and table is tasks:  # what an old clock said, or what was read anew from Kafka, has its time here as well
        too_old = [and_(at < before, tasks.c.stored < before)]
    if count:
        newest = select(at, table.c.id).order_by(at.desc(), table.c.id.desc()).offset(count - 1).limit(1)
        if (last := connection.execute(newest).first()) is not None:
            too_old.append(tuple_(at, table.c.id) < (last[0], last[1]))
    if not too_old:
        return 0
    chosen = select(table.c.id).where(or_(*too_old)).order_by(at, table.c.id).limit(AT_ONCE)
    if table is tasks:
        chosen = chosen.where(tasks.c.status.in_(FINAL))
    ids = connection.execute(chosen).scalars().all()
    if ids:
        connection.execute(delete(table).where(table.c.id.in_(ids)))
        if table is tasks:
            connection.execute(delete(generations).where(generations.c.id.in_(ids)))
    return len(ids)


def in_words(settings: Settings) -> dict[str, str]:
    """Return what is kept for how long, for people."""

    def age(seconds: float) -> str:
        return f"{seconds / 86400:g} d" if seconds else "for ever"

    def number(count: int, of: str) -> str:
        return f", the newest {count:,}{of}" if count else ""

    return {
        "tasks": age(settings.keep_tasks) + number(settings.keep_tasks_count, ""),
        "dead letters": age(settings.keep_deadletters) + number(settings.keep_deadletters_count, ""),
        "large payloads": (age(settings.keep_payloads) if settings.keep_payloads else "as tasks")
        + number(settings.keep_payloads_bytes, " bytes"),
        "sites": age(settings.keep_sites),
        "unused code": age(settings.keep_code),
        "Kafka": age(settings.keep_kafka) + number(settings.keep_kafka_bytes, " bytes of each partition"),
    }
