"""The service as its clients see it: routes, tokens, errors, events, sites, its start and its end; on real Kafka."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openapi_spec_validator import validate

from tests.services import RULE, TOKEN, Running, eventually, result, service
from upon import api
from upon.embedded.parts import TAKEN
from upon.embedded.ports import HOST
from upon.events import Event, read_record
from upon.kafka.clients import async_consumer
from upon.messages import DeadLetter, RuleRevision
from upon.serialize import dumps
from upon.topics import Topics

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestDoor:
    async def test_every_route_wants_the_token(self, running: Running) -> None:
        described = await running.ask("GET", "/openapi.json")
        async with aiohttp.ClientSession(running.url) as session:
            for path, methods in described["paths"].items():
                for method in methods:
                    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic " + TOKEN}):
                        async with session.request(method, path, headers=header) as response:
                            if path in ("/healthz", "/openapi.json"):
                                assert response.status == 200
                                continue
                            assert response.status == 401, (method, path)
                            assert (await response.json())["error"] == "NotAuthenticated"

    async def test_an_address_that_is_taken_is_a_clear_error(self, kafka: str, topics: Topics, tmp_path: Path) -> None:
        with socket.create_server((HOST, 0)) as other:
            one = Running(kafka, topics, tmp_path, UPON_LISTEN=f"{HOST}:{other.getsockname()[1]}")
            with pytest.raises(AssertionError, match=r"cannot listen on .*: [Aa]ddress already in use"):
                await one.start()
            assert await one.stop() == TAKEN

    async def test_the_description_is_valid_openapi(self, running: Running) -> None:
        described = await running.ask("GET", "/openapi.json")
        validate(described)
        assert "NewInvocation" in described["components"]["schemas"]

    async def test_what_is_no_route_is_a_problem_too(self, running: Running) -> None:
        assert "/v1/nonsense" in (await running.refused("GET", "/v1/nonsense", status=404)).message
        assert "GET" in (await running.refused("PUT", "/v1/tasks", status=405)).message

    async def test_a_wrong_body_names_the_field(self, running: Running) -> None:
        said = await running.refused("POST", "/v1/functions", {"name": 3, "body": "", "python": ""}, status=400)
        assert (said.error, said.message[:11]) == ("InputError", "body: name:")
        assert "missing" in (await running.refused("POST", "/v1/functions", {}, status=400)).message
        assert "JSON" in (await running.refused("POST", "/v1/rules", b"{", status=400)).message

    async def test_a_body_over_the_limit_is_refused(self, running: Running) -> None:
        body = b'"' + b"x" * (17 * 1024 * 1024) + b'"'
        assert (await running.refused("POST", "/v1/events", body, status=413)).error == "PayloadTooLarge"

    async def test_an_unknown_query_is_refused(self, running: Running) -> None:
        assert "limit" in (await running.refused("GET", "/v1/tasks?stauts=failed", status=400)).message
        assert "succeeded" in (await running.refused("GET", "/v1/tasks?status=done", status=400)).message
        assert "1 to 1000" in (await running.refused("GET", "/v1/tasks?limit=0", status=400)).message


class TestEvents:
    async def test_one_and_many(self, kafka: str, running: Running) -> None:
        one = Event(type="a", source="/x", subject="s", data={"n": 1})
        assert await running.ask("POST", "/v1/events", one.to_dict(), status=202) == {"ids": [one.id]}
        many = [Event(type="a", source="/x", subject=f"s{n % 3}", data=n) for n in range(100)]
        said = await running.ask("POST", "/v1/events", [event.to_dict() for event in many], status=202)
        assert said["ids"] == [event.id for event in many]
        found: dict[str | None, list[Event]] = {}
        count = 0
        async with async_consumer(kafka, "test", [running.records.topics.events]) as consumer, asyncio.timeout(30):
            await consumer.seek_to_beginning()
            while sum(map(len, found.values())) < 101:
                for some in (await consumer.getmany(timeout_ms=500)).values():
                    for record in some:
                        count += 1
                        for event in read_record(record.value, record.headers):
                            assert isinstance(event, Event)
                            found.setdefault(event.subject, []).append(event)
        assert found.pop("s") == [one]
        assert {key: [event.data for event in some] for key, some in found.items()} == {
            f"s{k}": list(range(k, 100, 3)) for k in range(3)
        }
        assert count <= 4, "events of one request and partition travel together"

    async def test_what_is_none_is_refused_whole(self, running: Running) -> None:
        good = Event(type="a", source="/x").to_dict()
        said = await running.refused("POST", "/v1/events", [good, {**good, "time": "noon"}], status=400)
        assert (said.error, said.message[:10]) == ("EventError", "[1]: time:")
        await running.refused("POST", "/v1/events", {"type": "a"}, status=400)
        await running.refused("POST", "/v1/events", 3, status=400)
        assert await running.ask("POST", "/v1/events", [], status=202) == {"ids": []}


class TestSystem:
    async def test_sites_come_and_go(self, alone: Running) -> None:
        (site,) = await alone.ask("GET", "/v1/sites")
        assert (site["name"], site["state"], site["slots"], site["busy"]) == ("local", "up", 2, 1)
        assert site["managers"][0]["workers"] == [8, 9]
        await alone.records.announce("alcf", state="down")
        await alone.wait_site("alcf")
        (alcf, _) = await alone.ask("GET", "/v1/sites")
        assert (alcf["state"], alcf["managers"]) == ("down", [])

    async def test_a_new_site_takes_tasks(self, running: Running) -> None:
        await running.register()
        await running.records.announce("new")
        await running.wait_site("new")
        await running.ask("POST", "/v1/invocations", {"function": "demo.double", "site": "new", "id": "n"}, status=202)
        assert (await running.task("n")).site == "new"

    async def test_a_record_of_the_registry_that_cannot_be_read_is_named(self, running: Running) -> None:
        async def notes() -> list[str]:
            return list((await running.ask("GET", "/v1/summary"))["notes"])

        async def none() -> bool:
            return not await notes()

        registry, key = running.topics.registry, b"rule/torn@1"
        await running.records.write(registry, b"\xc1", key=key)
        await running.records.write(running.topics.sites, b"\xc1", key=b"torn")

        async def both() -> str:
            return next((note for note in await notes() if "2 records" in note), "")

        said = await eventually(both, "a line says so")
        for part in ("2 records of the registry cannot be read and count for nothing", f"rule/torn@1 ({registry}/0/",
                     "site/torn (", "Register or apply again"):  # fmt: skip
            assert part in said
        await running.records.announce("torn")
        await running.records.write(registry, RuleRevision(name="torn", revision=1, spec={}), key=key)
        await eventually(none, "what can be read again is not named")

    async def test_rules_come_in_pages(self, running: Running) -> None:
        rules = "\n".join(f"  - {{name: paged-{n}, upon: {{type: [x]}}, run: {{function: f}}}}" for n in (3, 1, 2, 0))
        await running.ask("POST", "/v1/rules", {"yaml": f"rules:\n{rules}"})
        first = [one["name"] for one in await running.ask("GET", "/v1/rules?after=paged&limit=3")]
        assert first == ["paged-0", "paged-1", "paged-2"]
        await running.ask("DELETE", "/v1/rules/paged-2")
        rest = [one["name"] for one in await running.ask("GET", "/v1/rules?after=paged-2&limit=3")]
        assert rest[0] == "paged-3", "also behind a name that is gone"
        await running.refused("GET", "/v1/rules?limit=0", status=400)

    async def test_status(self, kafka: str, alone: Running) -> None:
        await alone.ask("POST", "/v1/rules", {"yaml": RULE})
        await alone.register()
        for n in range(3):
            await alone.ask("POST", "/v1/events", Event(type="a", source="/x").to_dict(), status=202)
            await alone.ask("POST", "/v1/invocations", {"function": "demo.double", "id": f"s{n}"}, status=202)
        status = await alone.ask("GET", "/v1/status")
        assert (status["kafka"], status["rules"], status["functions"]) == (kafka, 1, 1)
        assert (status["lag"]["streams"], status["lag"]["dispatcher:local"]) == (3, 3), "nobody has read them"
        async with async_consumer(kafka, "test", [alone.topics.events], f"{alone.topics.prefix}.streams") as consumer:
            for _ in range(2):
                record = await consumer.getone()
            await consumer.commit()
        assert record is not None

        async def caught_up() -> bool:
            return bool((await alone.ask("GET", "/v1/status"))["lag"] == {"service": 0, "streams": 1,
                                                                           "dispatcher:local": 3})  # fmt: skip

        await eventually(caught_up, "lag of streams is 1")

    async def test_dead_letters_newest_first(self, running: Running) -> None:
        now = time.time_ns()
        for n in range(3):
            letter = DeadLetter(id=f"d{n}", origin="t/0/1", part="streams", reason="EventError: no", value=b"\xffx",
                                at=now + n)  # fmt: skip
            await running.records.write(running.records.topics.deadletter, letter, letter)

        async def newest() -> list[dict[str, Any]] | None:
            found: list[dict[str, Any]] = await running.ask("GET", "/v1/deadletters?limit=2")
            return found if [one["id"] for one in found] == ["d2", "d1"] else None

        found = await eventually(newest, "the newest two")
        assert found[0]["value"] == ""
        assert (await running.ask("GET", "/v1/deadletters/d2"))["value"] == "\\xffx"


class TestLife:
    async def test_no_token_no_start(self, kafka: str, topics: Topics) -> None:
        with pytest.raises(AssertionError, match="needs a token"):
            async with service(kafka, topics, UPON_TOKEN=""):
                pass

    async def test_it_closes_its_clients_connections_and_stops(self, alone: Running) -> None:
        async with alone.stream() as stream:
            await stream.ask(api.Attach(request=1, group="g"))
            stopping = asyncio.create_task(alone.stop())
            message = await stream.socket.receive(timeout=10)
            assert (message.type, stream.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1001)
            assert await stopping == 0
        lines = [json.loads(line) for line in alone.log.read_text().splitlines() if line.startswith("{")]
        assert not [line for line in lines if line.get("level") in ("warning", "error", "critical")], lines

    async def test_pickles_are_never_loaded(self, running: Running, tmp_path: Any) -> None:
        trap = tmp_path / "loaded"

        class Trap:
            def __reduce__(self) -> Any:
                return open, (str(trap), "w")

        await running.records.results(result("trap", preview="<trap>", payload=dumps(Trap())))
        assert (await running.task_with("trap", "succeeded")).result == {"python": "<trap>"}
        assert not trap.exists()
