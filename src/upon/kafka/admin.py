"""Topic administration, with aiokafka's admin client (kafka-python's notices a restart late)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from upon.errors import KafkaError
from upon.kafka.clients import unavailable
from upon.topics import TopicSpec

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient


@asynccontextmanager
async def admin_client(kafka: str, timeout: float = 30.0) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client.

    Raises:
        KafkaUnavailable: no broker answers.
    """
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError as ClientError

    client = AIOKafkaAdminClient(bootstrap_servers=kafka, request_timeout_ms=int(timeout * 1000), retry_backoff_ms=50)
    try:
        await client.start()
    except (ClientError, OSError) as error:
        await client.close()
        raise unavailable(kafka, error) from error
    try:
        yield client
    finally:
        await client.close()


async def cluster_id(kafka: str) -> str:
    """Return the id of the Kafka at this address, which it keeps for life. Raises KafkaUnavailable."""
    async with admin_client(kafka) as client:
        return str((await client.describe_cluster())["cluster_id"])


async def ensure_topics(kafka: str, specs: Iterable[TopicSpec], replication: int = 1) -> None:
    """Create the topics that are not there yet, and wait until they can be used; leave the others as they are.

    Raises:
        KafkaUnavailable: no broker answers.
        KafkaError: the broker refuses to create one.
    """
    from aiokafka.admin import NewTopic
    from aiokafka.errors import TopicAlreadyExistsError, for_code

    wanted = list(specs)
    async with admin_client(kafka) as client:
        there = set(await client.list_topics())
        new = [
            NewTopic(spec.name, spec.partitions, replication, topic_configs=dict(spec.config))
            for spec in wanted
            if spec.name not in there
        ]
        if not new:
            return
        response = await client.create_topics(new)
        for name, code, *message in response.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise KafkaError(f"topic {name} was not created: {error.__name__} {message[0] if message else ''}")
        await _until_led(client, [spec.name for spec in new])


async def set_topic_limits(kafka: str, limits: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Set settings of topics that are there, where they are others; what else was set on a topic stays.

    Returns:
        The topics that were changed.

    Raises:
        KafkaUnavailable: no broker answers.
        KafkaError: the broker refuses.
    """
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
    from aiokafka.errors import for_code

    changed: list[str] = []
    async with admin_client(kafka) as client:
        for topic, wanted in limits.items():
            found = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            now, own = _settings(found)
            if all(now.get(name) == value for name, value in wanted.items()):
                continue
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={**own, **wanted})
            for answer in await client.alter_configs([resource]):
                for code, message, *_ in getattr(answer, "resources", ()):
                    if code:
                        raise KafkaError(f"topic {topic}: its limits were not set: {for_code(code).__name__} {message}")
            changed.append(topic)
    return changed


def _settings(answers: Iterable[Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return a topic's settings in force, and those that were set on the topic itself (source 1)."""
    now: dict[str, str] = {}
    own: dict[str, str] = {}
    for answer in answers:
        for _, _, _, _, entries in answer.resources:
            for name, value, _, source, *_ in entries:
                now[name] = value
                if source in (1, False):  # DYNAMIC_TOPIC_CONFIG; version 0 of the request says `is_default`
                    own[name] = value
    return now, own


async def _until_led(client: AIOKafkaAdminClient, names: list[str], timeout: float = 30.0) -> None:
    """Wait until every partition has its leader: a client that comes earlier is refused and logs warnings."""
    deadline = time.monotonic() + timeout
    while True:
        topics = await client.describe_topics(names)
        if all(not t["error_code"] and all(p["leader"] >= 0 for p in t["partitions"]) for t in topics):
            return
        if time.monotonic() > deadline:
            raise KafkaError(f"topics {', '.join(names)} were created, but have no leader after {timeout:.0f} s")
        await asyncio.sleep(0.01)
