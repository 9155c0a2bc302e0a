"""How far each part is behind: records in its topics that it has not taken in yet.

    streams             group <prefix>.streams on the events
    dispatcher:<site>   group <prefix>.dispatcher.<site> on the site's invocations
    service             the projection's own positions

A group that never committed is behind by all there is. What Kafka does not tell in time is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from upon.errors import KafkaUnavailable
from upon.kafka.ends import Ends
from upon.logs import get_logger
from upon.service.projector import Projector
from upon.service.store.projection import Positions
from upon.topics import Topics

TIMEOUT = 1.0
"""Seconds that Kafka has for each answer."""
log = get_logger(__name__)


class Lag:
    """Computes the lag of all parts.

    Args:
        kafka: bootstrap address.
        topics: the deployment's topics.
        ends: where partitions end.
        projector: the service's own position.
    """

    def __init__(self, kafka: str, topics: Topics, ends: Ends, projector: Projector) -> None:
        self._kafka, self._topics, self._ends, self._projector = kafka, topics, ends, projector
        self._admin: AIOKafkaAdminClient | None = None
        self._coordinators: dict[str, int] = {}
        self._asking = asyncio.Lock()

    async def run(self, sites: Iterable[str]) -> dict[str, int]:
        """Return the lag of each part, in records."""
        groups = {"streams": (f"{self._topics.prefix}.streams", self._topics.events)}
        for site in sites:
            group = f"{self._topics.prefix}.dispatcher.{site}"
            groups[f"dispatcher:{site}"] = (group, self._topics.invocations(site))
        own = self._projector.partitions()
        try:
            asked = await self._ends.partitions([topic for _, topic in groups.values()], TIMEOUT)
            every = list({*asked, *own})
            ends, begins = await asyncio.gather(self._ends.ends(every, TIMEOUT), self._ends.begins(every, TIMEOUT))
            async with self._asking, asyncio.timeout(TIMEOUT):
                admin = await self._connected()
                committed = await asyncio.gather(*(self._committed(admin, group) for group, _ in groups.values()))
        except (KafkaError, KafkaUnavailable, TimeoutError, OSError) as error:
            log.info("Kafka does not tell how far the parts are", action="lag", reason=str(error) or repr(error))
            await self.close()
            return {}
        lag = {"service": behind(self._projector.written, begins, ends, {p.topic for p in own})}
        for (part, (_, topic)), offsets in zip(groups.items(), committed, strict=True):
            lag[part] = behind(offsets, begins, ends, {topic})
        return lag

    async def close(self) -> None:
        """Disconnect; the next `run` connects again."""
        admin, self._admin, self._coordinators = self._admin, None, {}
        if admin is not None:
            await admin.close()

    async def _connected(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka, request_timeout_ms=int(TIMEOUT * 1000))
            await self._admin.start()
        return self._admin

    async def _committed(self, admin: AIOKafkaAdminClient, group: str) -> Positions:
        if group not in self._coordinators:
            self._coordinators[group] = await admin.find_coordinator(group)
        found: Mapping[TopicPartition, object]
        found = await admin.list_consumer_group_offsets(group, self._coordinators[group])
        return {(p.topic, p.partition): int(at.offset) for p, at in found.items() if at.offset >= 0}  # type: ignore[attr-defined]


def behind(positions: Positions, begins: Positions, ends: Positions, topics: set[str]) -> int:
    """Return how many records of `topics` lie between positions (none: the beginning) and ends.

    A position past the end is of a log that lost records or was made anew: all that is there counts as not taken in.
    """
    return sum(
        end - begins.get(place, 0) if positions.get(place, 0) > end else end - max(positions.get(place, 0), begin)
        for place, end in ends.items()
        if place[0] in topics and (begin := begins.get(place, 0)) <= end
    )
