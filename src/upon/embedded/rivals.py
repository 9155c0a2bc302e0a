"""Other systems on the same Kafka: found before ours starts beside them, for who starts a second one means another.

    upon.sites                        who serves our site: its dispatcher says so every few seconds
    members of the group of streams   which systems serve our prefix: a stream worker of `upon up` names its supervisor

On this machine a process id says whether the other lives. Elsewhere only time can: a site is heard of within
`HEARD`, a dead member of the group is dropped within its session. Clocks are not compared.
Not here: dispatchers of one site that stand by for each other (`upon.dispatcher.tenure`): who starts them means it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from upon import processes
from upon.dispatcher.tenure import SPEAKS_EVERY, is_over
from upon.errors import Conflict, InputError
from upon.kafka.admin import admin_client
from upon.kafka.clients import async_consumer
from upon.kafka.settings import SESSION_TIMEOUT_MS
from upon.messages import SiteStatus, decode
from upon.part import CLIENT_MARK
from upon.topics import Topics

HEARD = 4 * SPEAKS_EVERY
"""Seconds within which a living dispatcher is heard of."""


@dataclass(frozen=True, slots=True)
class Other:
    """A system as its stream worker names it: the host and the supervisor's process (`processes.myself`)."""

    host: str
    supervisor: str

    @property
    def pid(self) -> str:
        return self.supervisor.partition(":")[0]


def others(client_ids: Iterable[str], me: Other, alive: Callable[[str], bool]) -> list[Other]:
    """Return the other systems among the members of a group, without those of this host that have ended.

    Args:
        client_ids: of the members; those of stream workers that were started by hand carry no system.
        me: this system.
        alive: whether the process of a name runs on this host.
    """
    found = []
    for client in client_ids:
        _, mark, name = client.partition(CLIENT_MARK)
        host, _, supervisor = name.rpartition("/")
        other = Other(host, supervisor)
        if mark and other != me and other not in found and (host != me.host or alive(supervisor)):
            found.append(other)
    return found


async def check(kafka: str, topics: Topics, site: str) -> None:
    """Look for other systems that serve this prefix or this site.

    Raises:
        Conflict: there is one.
        KafkaUnavailable: no broker answers.
    """
    async with admin_client(kafka) as client:
        there = set(await client.list_topics())
    if topics.sites not in there:
        return
    if (status := await _site(kafka, topics, site)) is not None:
        raise Conflict(
            f"the site {site!r} of the prefix {topics.prefix!r} on the Kafka at {kafka} is served already, by "
            f"{status.host} (pid {status.pid}): two would run each task twice. Name another site with "
            "`--site NAME`, or another prefix with `--prefix NAME`, or stop that one"
        )
    await check_prefix(kafka, topics, SESSION_TIMEOUT_MS / 1000 + 1)


async def check_prefix(kafka: str, topics: Topics, patience: float = 0.0) -> None:
    """Look for other systems that serve this prefix.

    Args:
        patience: s, how long one on another host may be a dead one that Kafka has not noticed yet.

    Raises:
        Conflict: there is one.
    """
    me = Other(socket.gethostname(), processes.myself())
    until = asyncio.get_running_loop().time() + patience
    async with admin_client(kafka) as client:
        while True:
            responses = await client.describe_consumer_groups([f"{topics.prefix}.streams"])
            found = others(_client_ids(responses), me, lambda name: processes.alive(name) is not None)
            here = [other for other in found if other.host == me.host]
            if not found or here or asyncio.get_running_loop().time() >= until:
                break
            await asyncio.sleep(0.5)
    if found:
        other = (here or found)[0]
        raise Conflict(
            f"another system serves the prefix {topics.prefix!r} on the Kafka at {kafka}: `upon up` on {other.host} "
            f"(pid {other.pid}). Give this one topics of its own with `--prefix NAME`, or stop that one; to add a site "
            "or workers to it, run the parts that are missing (docs/operations.md)"
        )


async def _site(kafka: str, topics: Topics, site: str) -> SiteStatus | None:
    """Return what a living dispatcher of this site says of itself, None if there is none."""
    host, last = socket.gethostname(), None
    loop = asyncio.get_running_loop()
    async with async_consumer(kafka, "upon-up") as consumer:
        from aiokafka import TopicPartition

        partition = TopicPartition(topics.sites, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        until: float | None = None
        while True:
            if until is None and await consumer.position(partition) >= end:
                over = is_over(last, host, lambda name: processes.alive(name) is not None)
                if over is not None:
                    return None if over else last
                until = loop.time() + HEARD
            if until is not None and loop.time() >= until:
                return None
            for record in (await consumer.getmany(partition, timeout_ms=500)).get(partition, []):
                said = _status(record.value, site)
                if said is None or not said.holds_after(last):
                    continue
                last = said
                if until is not None and said.state == "up":
                    return said


def _status(value: bytes | None, site: str) -> SiteStatus | None:
    try:
        status = decode(value or b"", SiteStatus)
    except InputError:
        return None
    return status if status.site == site else None


def _client_ids(responses: Any) -> list[str]:
    """Return the client ids of all members, from what aiokafka answers: its responses' rows."""
    return [str(member[1]) for response in responses for group in response.groups for member in group[5]]
