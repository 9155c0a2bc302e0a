"""The stream worker on real Kafka: events in, invocations and dead letters out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from tests.integration.streams_worker import (
    Worker,
    announce,
    functions_and_rules,
    invocations,
    letters,
    publish,
    register,
    workers,
)
from upon.events import BATCH, Event
from upon.kafka import settings
from upon.kafka.admin import ensure_topics
from upon.kafka.clients import async_producer
from upon.messages import Invocation, Retry, SiteStatus, encode
from upon.serialize import loads_plain
from upon.topics import Topics

RULES = """
rules:
  - name: weigh
    upon: {type: [sample.ready], data: {mass: [{numeric: [">", 0]}]}}
    run:
      function: lab.weigh
      args: ["${subject}", "${data.mass}"]
      kwargs: {note: "${subject} weighs ${data.mass}", whole: "${data}"}
      timeout: 5m
      retry: {attempts: 2, on: [OSError]}
  - name: grind
    upon: {type: [sample.ready]}
    where: data.hard
    run: {function: lab.grind}
  - name: unknown
    upon: {type: [needs.unknown]}
    run: {function: lab.nowhere}
  - name: nosite
    upon: {type: [needs.site]}
    run: {function: lab.grind, site: mars}
"""

Start = Callable[[], Worker]


@pytest.fixture
def start(kafka: str, topics: Topics, tmp_path: Path) -> Iterator[Start]:
    with workers(kafka, topics, tmp_path) as starter:
        yield starter


@pytest.fixture
def worker(kafka: str, topics: Topics, start: Start) -> Worker:
    """A worker with `RULES`."""
    register(kafka, topics, functions_and_rules(RULES, "lab.weigh", "lab.grind"), "local")
    return start().wait_ready()


def sample(number: int, **data: Any) -> bytes:
    event = Event(type="sample.ready", source="/lab", id=f"e{number}", subject=f"S-{number}", data=data)
    return json.dumps(event.to_dict()).encode()


def typed(kind: str, **data: Any) -> bytes:
    return json.dumps(Event(type=kind, source="/lab", id="e1", data=data).to_dict()).encode()


async def test_an_event_becomes_invocations(kafka: str, topics: Topics, worker: Worker, tmp_path: Path) -> None:
    await publish(kafka, topics.events, sample(1, mass=3, hard=True))
    found = {one.function: one for one in await invocations(kafka, topics, lambda found: len(found) >= 2)}
    weigh = found["lab.weigh"]
    whole = {"mass": 3, "hard": True}
    assert loads_plain(weigh.payload) == [["S-1", 3], {"note": "S-1 weighs 3", "whole": whole}]
    assert (weigh.timeout, weigh.retry, weigh.version) == (300.0, Retry(attempts=2, on=("OSError",)), 1)
    assert weigh.cause is not None
    assert (weigh.cause.rule, weigh.cause.event_id, weigh.cause.event_subject) == ("weigh", "e1", "S-1")
    assert weigh.cause.event_recorded > 0
    assert loads_plain(found["lab.grind"].payload) == [[], {}]
    assert worker.ready["group"] == f"{topics.prefix}.streams"
    assert worker.stop() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["streams"]


async def test_what_is_no_event_is_a_dead_letter_and_the_stream_goes_on(
    kafka: str, topics: Topics, worker: Worker
) -> None:
    bad = json.dumps({"specversion": "1.0", "id": "x", "type": "t"}).encode()
    batch = json.dumps([json.loads(sample(2, mass=1)), {"specversion": "0.3"}, json.loads(sample(3, mass=1))]).encode()
    await publish(kafka, topics.events, b"\xff\xfe no event", bad, None, b"[]", sample(1, mass=1))
    await publish(kafka, topics.events, batch, headers=[("content-type", BATCH.encode()), ("x", b"y")])
    found = await invocations(kafka, topics, lambda found: len(found) >= 3)
    assert [one.cause.event_id for one in found if one.cause and one.cause.rule == "weigh"] == ["e1", "e2", "e3"]
    dead = await letters(kafka, topics, 7)
    reasons = [one.reason for one in dead]
    assert "not JSON" in reasons[0]
    assert "source: is required" in reasons[1]
    assert "empty record" in reasons[2]
    assert dead[0].value == b"\xff\xfe no event"
    assert dead[0].origin.startswith(f"{topics.events}/")
    alone = next(one for one in dead if "0.3" in one.reason)
    assert json.loads(alone.value) == {"specversion": "0.3"}
    assert dict(alone.headers)["x"] == b"y"
    assert worker.process.poll() is None


async def test_what_a_rule_cannot_do_is_a_dead_letter_with_its_reason(
    kafka: str, topics: Topics, worker: Worker
) -> None:
    await publish(kafka, topics.events, typed("needs.unknown"), typed("needs.site"), sample(1, mass=1))
    dead = {one.reason.split(":")[0]: one for one in await letters(kafka, topics, 3)}
    assert "function: FunctionNotFound: function 'lab.nowhere' is not registered" in dead["rule unknown"].reason
    assert f"site mars: topic {topics.invocations('mars')} does not exist" in dead["rule nosite"].reason
    assert "where: 'data.hard': there is no field 'hard'" in dead["rule grind"].reason
    assert json.loads(dead["rule nosite"].value)["type"] == "needs.site"


async def test_rules_change_without_a_restart(kafka: str, topics: Topics, worker: Worker) -> None:
    changed = RULES.replace('["${subject}", "${data.mass}"]', '["second"]')
    register(kafka, topics, functions_and_rules(changed, "lab.weigh", revision=2))
    number = 0

    async def publish_until() -> None:
        nonlocal number
        while True:
            number += 1
            await publish(kafka, topics.events, sample(number, mass=1, hard=False))
            await asyncio.sleep(0.05)

    publishing = asyncio.create_task(publish_until())
    try:
        found = await invocations(
            kafka, topics, lambda found: any(one.cause and one.cause.rule_revision == 2 for one in found)
        )
    finally:
        publishing.cancel()
    newest = next(one for one in found if one.cause and one.cause.rule_revision == 2)
    assert loads_plain(newest.payload)[0] == ["second"]


async def committed(kafka: str, topics: Topics) -> int:
    consumer = AIOKafkaConsumer(**settings.async_consumer(kafka, "test", f"{topics.prefix}.streams"))
    await consumer.start()
    try:
        partitions = [TopicPartition(topics.events, number) for number in range(4)]
        return sum([await consumer.committed(one) or 0 for one in partitions])
    finally:
        await consumer.stop()


async def test_nothing_is_lost_when_workers_are_killed(
    kafka: str, topics: Topics, worker: Worker, start: Start
) -> None:
    total = 300

    async def publish_all() -> None:
        for number in range(total):
            await publish(kafka, topics.events, sample(number, mass=1, hard=False))

    publishing = asyncio.create_task(publish_all())
    second = start().wait_ready()
    await invocations(kafka, topics, lambda found: len(found) >= 20)
    worker.kill()
    third = start().wait_ready()
    await publishing
    found = await invocations(kafka, topics, lambda found: len({one.id for one in found}) >= total)
    assert {one.cause.event_id for one in found if one.cause} == {f"e{number}" for number in range(total)}
    assert len({one.id for one in found}) == total
    assert (second.stop(), third.stop()) == (0, 0)
    assert await committed(kafka, topics) == total


async def test_a_stopped_worker_has_committed_what_it_did(
    kafka: str, topics: Topics, worker: Worker, start: Start
) -> None:
    await publish(kafka, topics.events, *[sample(number, mass=1, hard=False) for number in range(20)])
    await invocations(kafka, topics, lambda found: len(found) >= 20)
    assert worker.stop() == 0
    assert await committed(kafka, topics) == 20
    start().wait_ready()
    await publish(kafka, topics.events, sample(99, mass=1, hard=False))
    found = await invocations(kafka, topics, lambda found: "e99" in {one.cause and one.cause.event_id for one in found})
    assert len(found) == 21


ROAMING = """
rules:
  - name: roam
    upon: {type: [sample.ready]}
    once: subject
    run: {function: lab.weigh, site: [far, local]}
"""


def subjects(found: list[Invocation]) -> set[str]:
    return {one.cause.event_subject for one in found if one.cause}


async def set_commits(kafka: str, topics: Topics, offset: int) -> None:
    """Let the group, which has no members, go on at an offset of each partition."""
    consumer = AIOKafkaConsumer(**settings.async_consumer(kafka, "test", f"{topics.prefix}.streams"))
    await consumer.start()
    try:
        partitions = [TopicPartition(topics.events, number) for number in range(4)]
        consumer.assign(partitions)
        await consumer.commit(dict.fromkeys(partitions, offset))
    finally:
        await consumer.stop()


@asynccontextmanager
async def kept_up(kafka: str, topics: Topics, site: str) -> AsyncIterator[None]:
    """A site that says once a second that it is up, as a dispatcher does."""

    async def say() -> None:
        while True:
            up = SiteStatus(site=site, pid=1, host="here", at=time.time_ns())
            await producer.send_and_wait(topics.sites, encode(up), key=site.encode())
            await asyncio.sleep(1)

    async with async_producer(kafka, "test") as producer:
        saying = asyncio.create_task(say())
        try:
            yield
        finally:
            saying.cancel()


async def test_work_stays_at_the_site_chosen_first_when_its_event_is_read_again_and_sites_flap(
    kafka: str, topics: Topics, start: Start
) -> None:
    await ensure_topics(kafka, topics.of_site("far"))
    register(kafka, topics, functions_and_rules(ROAMING, "lab.weigh"))
    async with kept_up(kafka, topics, "far"):
        worker = start().wait_ready()
        await publish(kafka, topics.events, *[sample(number) for number in range(30)])
        first = {one.id for one in await invocations(kafka, topics, lambda found: len(found) >= 30, "far")}
    assert worker.stop() == 0  # it leaves the group, whose positions can be set then
    announce(kafka, topics, SiteStatus(site="far", pid=1, host="here", at=1, state="down"))
    await set_commits(kafka, topics, 0)  # everything is read again, as after a kill before any commit
    async with kept_up(kafka, topics, "local"):
        worker = start().wait_ready()
        late = json.dumps(Event(type="sample.ready", source="/lab", subject="S-1").to_dict()).encode()
        await publish(kafka, topics.events, late, sample(100))
        near = await invocations(kafka, topics, lambda found: "S-100" in subjects(found), "local")
    assert subjects(near) == {"S-100"}
    assert not first & {one.id for one in near}
    assert worker.stop() == 0


class NamedAsFausts(RoundRobinPartitionAssignor):  # type: ignore[misc]
    """Kafka lets only members into a group that know an assignor of one name."""

    name = "faust"


async def leave_a_dead_member(kafka: str, topics: Topics) -> None:
    """Have the group a member that is gone without a word, as one that was killed: Kafka counts it for 6 s more."""
    options = settings.async_consumer(kafka, "test", f"{topics.prefix}.streams")
    consumer = AIOKafkaConsumer(topics.events, **options, partition_assignment_strategy=[NamedAsFausts])
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            while not consumer.assignment():
                await consumer.getmany(timeout_ms=100)
    finally:
        await consumer._client.close()  # no connection is left to say goodbye on
        await consumer.stop()


async def test_a_position_past_the_end_of_the_log_is_corrected_also_while_the_group_has_a_dead_member(
    kafka: str, topics: Topics, start: Start
) -> None:
    """A broker that lost the end of its log in a power cut knows the workers of before for a while."""
    register(kafka, topics, functions_and_rules(RULES, "lab.weigh", "lab.grind"), "local")
    await set_commits(kafka, topics, 1000)
    await leave_a_dead_member(kafka, topics)
    worker = start().wait_ready()
    await publish(kafka, topics.events, *[sample(number, mass=1) for number in range(20)])
    found = await invocations(kafka, topics, lambda found: len(found) >= 20)
    assert subjects(found) == {f"S-{number}" for number in range(20)}
    assert worker.stop() == 0


async def test_the_letters_of_many_rules_hold_a_large_event_a_few_times(
    kafka: str, topics: Topics, start: Start
) -> None:
    """Each with its event they would be a gigabyte for a hundred rules."""
    rules = "rules:\n" + "".join(
        f"  - {{name: r{n}, upon: {{type: [large]}}, run: {{function: lab.weigh, args: ['${{data.nope}}']}}}}\n"
        for n in range(8)
    )
    register(kafka, topics, functions_and_rules(rules, "lab.weigh"), "local")
    start().wait_ready()
    await publish(kafka, topics.events, typed("large", x="y" * 6_000_000))
    found = await letters(kafka, topics, 8)
    assert {one.rule for one in found} == {f"r{n}" for n in range(8)}
    assert sum(one.whole for one in found) == 2
    assert all("stands at" in one.reason and not one.value for one in found if not one.whole)
    assert {one.size for one in found if one.whole} == {one.size for one in found}
