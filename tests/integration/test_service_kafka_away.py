"""The service while its broker is killed and comes back: requests wait, nothing accepted is lost, all goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.services import Records, eventually, invocation, result, service
from upon import api
from upon.embedded.broker.broker import Broker
from upon.errors import JavaNotFound, KafkaInstallError
from upon.events import Event
from upon.kafka.admin import ensure_topics
from upon.messages import FunctionCode, InvocationBatch
from upon.serialize import dump_function
from upon.topics import Topics


@pytest.mark.timeout(240)
async def test_kafka_killed_and_back(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka")
    try:
        broker.prepare()
    except (JavaNotFound, KafkaInstallError) as error:
        missing(str(error))
    broker.start()
    try:
        await asyncio.to_thread(broker.wait_ready, 60)
        kafka, topics = broker.address, Topics("away")
        await ensure_topics(kafka, [*topics.shared(), *topics.of_site("local")])
        records = Records(kafka, topics)
        await records.announce()
        async with service(kafka, topics) as running, running.stream() as stream:
            body = dump_function(pow)
            code = (await running.register(body=body)).code
            await stream.ask(api.Register(request=0, code=FunctionCode(hash=code, body=body, python="3.11")))
            await stream.ask(api.Attach(request=0, group="g"))
            await stream.ask(api.Watch(request=0, events=True, tasks=True))

            broker.kill()
            for n in range(1, 101):
                one = invocation(f"t{n}", code)
                await stream.send(api.Submit(request=n, site="local", group="g", invocations=(one,)))
            event = Event(type="a", source="/x")
            publishing = asyncio.create_task(running.ask("POST", "/v1/events", event.to_dict(), status=202))
            new = {"yaml": "version: 1\nrules:\n  - {name: r, upon: {type: [a]}, run: {function: f, site: local}}\n"}
            applying = asyncio.create_task(running.ask("POST", "/v1/rules", new))
            assert (await running.ask("GET", "/healthz")) == {"status": "ok"}
            assert (await running.ask("GET", "/v1/tasks")) == []
            assert (await running.ask("GET", "/v1/status"))["lag"] == {}
            said = await running.refused("GET", "/v1/tasks/t1", status=503)
            assert said.error == "ServiceUnavailable", "t1 was submitted: that there is none would be wrong"
            assert not publishing.done()
            assert not applying.done()
            assert not [frame for frame in stream.waiting if isinstance(frame, api.Done)]

            broker.start()
            await asyncio.to_thread(broker.wait_ready, 60)
            assert {(await stream.next(api.Done)).request for _ in range(100)} == set(range(1, 101))
            await publishing
            (rule,) = await applying
            assert rule["revision"] == 1
            assert (await stream.next(api.EventSeen)).event["id"] == event.id

            def everything(batches: list[InvocationBatch]) -> bool:
                return {one.id for batch in batches for one in batch.invocations} >= {f"t{n}" for n in range(1, 101)}

            batches = await records.read_until(topics.invocations("local"), InvocationBatch, everything)
            assert len(batches) < 100, "what waited for the broker shares records"
            await records.results(*[result(f"t{n}", n, group="g") for n in range(1, 101)])
            assert len(await stream.results(100)) == 100

            async def all_succeeded() -> bool:
                return len(await running.ask("GET", "/v1/tasks?status=succeeded&limit=200")) == 100

            await eventually(all_succeeded, "the projection goes on")
            assert (await running.ask("GET", "/v1/status"))["lag"]["dispatcher:local"] >= 1
    finally:
        broker.stop()
