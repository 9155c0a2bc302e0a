"""A real stream worker for tests: the part `streams` as a process, and what goes in and comes out of Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer

from upon.kafka import settings
from upon.kafka.clients import async_producer, sync_producer
from upon.messages import (
    DeadLetter,
    FunctionRecord,
    Invocation,
    InvocationBatch,
    RegistryRecord,
    RuleActivation,
    RuleActivations,
    RuleRevision,
    SiteStatus,
    decode,
    encode,
    registry_key,
)
from upon.streams.rules import rule_specs
from upon.topics import Topics

M = TypeVar("M")
DEADLINE = 60.0


class Worker:
    """One stream worker, as `upon part streams` runs it. `ready` says what it told its supervisor."""

    def __init__(self, kafka: str, topics: Topics, home: Path) -> None:
        read, write = os.pipe()
        environment = os.environ | {
            "UPON_KAFKA": kafka,
            "UPON_PREFIX": topics.prefix,
            "UPON_HOME": str(home),
            "UPON_READY_FD": str(write),
            "UPON_LOG_LEVEL": "info",
        }
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in `close`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "upon", "part", "streams", "--home", str(home)],
            env=environment,
            pass_fds=[write],
            stderr=self._log,
            cwd=home,
        )
        os.close(write)
        self._ready = os.fdopen(read)
        self.ready: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def wait_ready(self) -> Worker:
        """Return when the worker is ready; fail when it ended instead."""
        watch = threading.Timer(DEADLINE, self.process.kill)
        watch.start()
        try:
            line = self._ready.readline()
        finally:
            watch.cancel()
        assert line, f"the worker ended before it was ready:\n{self.log()}"
        self.ready = json.loads(line)
        return self

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def stop(self) -> int:
        """Stop as a supervisor does; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._ready.close()
        self._log.close()


@contextmanager
def workers(kafka: str, topics: Topics, home: Path) -> Iterator[Callable[[], Worker]]:
    """Give a function that starts workers; all are gone at the end, whatever happened."""
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(kafka, topics, home))
        return started[-1]

    try:
        yield start
    finally:
        for worker in started:
            worker.close()


def functions_and_rules(yaml: str, *functions: str, revision: int = 1, number: int = 0) -> list[RegistryRecord]:
    """Return registry records for rules as YAML, put in force by one record, and for functions by name.

    Args:
        number: of the activations; 0: the revision.
    """
    records: list[RegistryRecord] = [
        FunctionRecord(name=name, version=1, code=name.encode().hex().ljust(64, "0")) for name in functions
    ]
    rules = [RuleRevision(name=name, revision=revision, spec=spec) for name, spec in rule_specs(yaml)]
    in_force = tuple(RuleActivation(rule=one.name, revision=revision) for one in rules)
    return [*records, *rules, RuleActivations(number=number or revision, rules=in_force)]


def register(kafka: str, topics: Topics, records: list[RegistryRecord], *sites: str) -> None:
    """Write registry and sites, as service and dispatchers do."""
    producer = sync_producer(kafka, "test")
    for record in records:
        producer.send(topics.registry, key=registry_key(record), value=encode(record))
    producer.flush()
    producer.close()
    announce(kafka, topics, *[SiteStatus(site=site, pid=1, host="here", at=time.time_ns()) for site in sites])


def announce(kafka: str, topics: Topics, *statuses: SiteStatus) -> None:
    """Say of sites what their dispatchers would."""
    producer = sync_producer(kafka, "test")
    for status in statuses:
        producer.send(topics.sites, key=status.site.encode(), value=encode(status))
    producer.flush()
    producer.close()


async def publish(
    kafka: str, topic: str, *values: bytes | None, headers: list[tuple[str, bytes]] | None = None
) -> None:
    """Send records, whole, in order of a single partition's key."""
    async with async_producer(kafka, "test") as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"k", headers=headers)


async def read(kafka: str, topic: str, kind: type[M], enough: Callable[[list[M]], bool]) -> list[M]:
    """Return the messages of a topic, from its beginning, once they are enough."""
    consumer = AIOKafkaConsumer(topic, **settings.async_consumer(kafka, "test", None))
    await consumer.start()
    found: list[M] = []
    deadline = time.monotonic() + DEADLINE
    try:
        while not enough(found):
            assert time.monotonic() < deadline, f"only {len(found)} messages in {topic}: {found[:5]}"
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [decode(record.value, kind) for record in records]
        return found
    finally:
        await consumer.stop()


async def invocations(
    kafka: str, topics: Topics, enough: Callable[[list[Invocation]], bool], site: str = "local"
) -> list[Invocation]:
    """Return the invocations for a site, once they are enough."""

    def unpack(found: list[InvocationBatch]) -> list[Invocation]:
        return [one for batch in found for one in batch.invocations]

    return unpack(await read(kafka, topics.invocations(site), InvocationBatch, lambda found: enough(unpack(found))))


async def letters(kafka: str, topics: Topics, count: int) -> list[DeadLetter]:
    """Return the dead letters once there are `count`."""
    return await read(kafka, topics.deadletter, DeadLetter, lambda found: len(found) >= count)
