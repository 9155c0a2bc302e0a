"""The service as its clients see it: routes, tokens, errors, and the store behind them, on real Kafka."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from openapi_spec_validator import validate

from tests.services import TOKEN, Records, Running, eventually, invocation, result, service
from upon import api
from upon.events import Event, read_record
from upon.kafka.clients import async_consumer
from upon.messages import (
    Cancel,
    Cause,
    DeadLetter,
    Failure,
    InvocationBatch,
    RegistryRecord,
    RuleActivations,
    RuleRevision,
    Started,
)
from upon.serialize import dumps, unpack_call
from upon.topics import Topics


@pytest.fixture
def records(kafka: str, topics: Topics) -> Records:
    return Records(kafka, topics)


@pytest.fixture
async def running(kafka: str, topics: Topics, records: Records) -> AsyncIterator[Running]:
    """A service that knows the site `local`."""
    await records.announce()
    async with service(kafka, topics) as one:
        yield one


RULE = """
version: 1
rules:
  - name: thumbs
    upon: {type: [upon.file.ready]}
    run: {function: thumbs.make, site: local, args: ["${subject}"]}
"""


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


class TestFunctions:
    async def test_versions(self, running: Running) -> None:
        first = await running.register(body=b"one")
        again = await running.register(body=b"one")
        second = await running.register(body=b"two")
        assert (first.version, again.version, second.version) == (1, 1, 2)
        assert again == first
        assert (await running.ask("GET", "/v1/functions/demo.double"))["version"] == 2
        assert (await running.ask("GET", "/v1/functions/demo.double@1"))["code"] == first.code
        assert [one["version"] for one in await running.ask("GET", "/v1/functions")] == [2, 1]

    async def test_many_at_once_get_versions_of_their_own(self, running: Running) -> None:
        found = await asyncio.gather(*(running.register(body=b"%d" % (n % 10)) for n in range(40)))
        assert len({(one.version, one.code) for one in found}) == 10
        assert sorted({one.version for one in found}) == list(range(1, 11))

    @pytest.mark.parametrize("name", ["", ".a", "a b", "a@2", "ä", "a" * 201])
    async def test_a_bad_name_is_refused(self, running: Running, name: str) -> None:
        new = api.NewFunction(name=name, body=b"x", python="3.11")
        assert (await running.refused("POST", "/v1/functions", new, status=400)).error == "FunctionError"

    async def test_what_is_not_there_names_what_is(self, running: Running) -> None:
        await running.register()
        said = await running.refused("GET", "/v1/functions/demo.treble", status=404)
        assert (said.error, "demo.double" in said.message) == ("FunctionNotFound", True)
        await running.refused("GET", "/v1/functions/demo.double@7", status=404)
        await running.refused("GET", "/v1/functions/demo.double@x", status=404)

    async def test_versions_are_deleted_and_their_numbers_not_given_again(self, running: Running) -> None:
        for body in (b"one", b"two"):
            await running.register(body=body)
        path = "/v1/functions/demo.double"
        pinned = RULE.replace("thumbs.make", "demo.double@2")
        await running.ask("POST", "/v1/rules", {"yaml": pinned})
        said = await running.refused("DELETE", path, status=409)
        assert (said.error, "rule thumbs runs" in said.message) == ("Conflict", True)
        await running.refused("DELETE", f"{path}@2?force=yes", status=400)
        await running.refused("DELETE", f"{path}@7", status=404)
        (gone,) = await running.ask("DELETE", f"{path}@2?force=true")
        assert (gone["version"], gone["rules"], gone["source"]) == (2, ["thumbs"], "")
        assert (await running.ask("GET", path))["version"] == 1
        assert "is deleted" in (await running.refused("GET", f"{path}@2", status=404)).message
        await running.refused("POST", "/v1/invocations", {"function": "demo.double@2"}, status=404)
        assert (await running.register(body=b"two")).version == 3
        listed = await running.ask("GET", f"{path}/versions")
        assert [(one["version"], one["newest"], one["rules"], bool(one["deleted"])) for one in listed] == [
            (3, True, [], False), (2, False, ["thumbs"], True), (1, False, [], False)
        ]  # fmt: skip
        assert [one["version"] for one in await running.ask("DELETE", f"{path}?force=true")] == [1, 3]
        assert await running.ask("GET", "/v1/functions") == []
        assert len(await running.ask("GET", f"{path}/versions")) == 3
        await running.refused("GET", "/v1/functions/demo.treble/versions", status=404)
        (warned,) = await running.ask("POST", "/v1/rules/check", {"yaml": pinned})
        assert "function 'demo.double' is deleted" in warned["warnings"][0]

    async def test_two_at_once_and_another_service_agree(self, kafka: str, topics: Topics, running: Running) -> None:
        await running.register(body=b"one")
        store = f"sqlite:///{running.home}/service/tasks.db"  # whoever shares it takes turns
        async with service(kafka, topics, UPON_DATABASE=store) as other:

            async def life(one: Running, n: int) -> int:
                version = (await one.register(body=b"%d" % n)).version
                await one.ask("DELETE", f"/v1/functions/demo.double@{version}")
                return version

            some = [life((running, other)[n % 2], n) for n in range(20)]
            assert sorted(await asyncio.gather(*some)) == list(range(2, 22))
            assert (await other.register(body=b"last")).version == 22
            assert (await running.ask("GET", "/v1/functions/demo.double@1"))["version"] == 1

    async def test_they_survive_a_restart(self, kafka: str, topics: Topics, running: Running) -> None:
        first = await running.register(body=b"one")
        async with service(kafka, topics) as other:
            assert (await other.register(body=b"one")) == first


class TestRules:
    async def test_a_wording_keeps_its_revision_and_a_new_one_gets_a_new_number(
        self, running: Running, records: Records
    ) -> None:
        async def apply(text: str) -> tuple[int, str]:
            (one,) = await running.ask("POST", "/v1/rules", {"yaml": text})
            return one["revision"], one["change"]

        changed = RULE.replace("${subject}", "${id}")
        assert await apply(RULE) == (1, "new")
        assert await apply(RULE) == (1, "unchanged")
        assert await apply(changed) == (2, "changed")
        assert await apply(RULE) == (1, "changed")
        await running.ask("DELETE", "/v1/rules/thumbs")
        assert await running.ask("GET", "/v1/rules") == []
        assert (await running.refused("DELETE", "/v1/rules/thumbs", status=404)).error == "RuleNotFound"
        assert await apply(changed) == (2, "new")
        assert await apply(RULE.replace("${subject}", "${time}")) == (3, "changed")
        assert [one["revision"] for one in await running.ask("GET", "/v1/rules")] == [3]
        union: Any = RegistryRecord  # mypy takes a union for no type that can be passed
        found: list[Any] = await records.read(records.topics.registry, union, 9)
        assert [one.revision for one in found if isinstance(one, RuleRevision)] == [1, 2, 3]
        activations = [one for one in found if isinstance(one, RuleActivations)]
        assert [one.rules[0].revision for one in activations] == [1, 2, 1, 0, 2, 3]
        assert [one.number for one in activations] == [1, 2, 3, 4, 5, 6]

    async def test_what_no_record_can_hold_is_refused_whole(self, running: Running) -> None:
        huge = RULE + """  - {name: huge, upon: {type: [t]}, run: {function: f, args: [99999999999999999999]}}\n"""
        said = await running.refused("POST", "/v1/rules", {"yaml": huge, "file": "my.yaml"}, status=400)
        assert said.error == "RuleError"
        assert said.message.startswith("my.yaml:7:")
        assert await running.ask("GET", "/v1/rules") == []

    async def test_a_rule_that_no_record_holds_leaves_the_others_of_its_file_out_of_force(
        self, running: Running
    ) -> None:
        text, often = "x" * 1_000_000, ", ".join(["*a"] * 17)  # short in YAML: aliases
        large = RULE + f"  - {{name: large, upon: {{type: [t]}}, run: {{function: f, args: [&a {text}, {often}]}}}}\n"
        said = await running.refused("POST", "/v1/rules", {"yaml": large, "file": "my.yaml"}, status=413)
        assert said.error == "PayloadTooLarge"
        assert said.message.startswith("rule 'large' of my.yaml: 18,0")
        assert said.message.endswith("nothing was changed")
        assert await running.ask("GET", "/v1/rules") == []

    async def test_disable_rollback_history_and_prune(self, running: Running) -> None:
        async def ask(path: str, **body: Any) -> Any:
            return await running.ask("POST", f"/v1/rules{path}", body or None)

        changed = RULE.replace("${subject}", "${id}")
        await ask("", yaml=RULE, file="/a.yaml")
        (one,) = await ask("", yaml=changed, file="/a.yaml")
        assert (one["revision"], one["change"], one["enabled"]) == (2, "changed", True)
        assert "function 'thumbs.make' is not registered" in one["warnings"][0]
        (plan,) = await ask("/check", yaml=RULE, file="/a.yaml")
        assert (plan["revision"], plan["change"]) == (1, "changed")
        assert (await running.ask("GET", "/v1/rules"))[0]["revision"] == 2, "check changes nothing"
        assert (await ask("/thumbs/disable"))["enabled"] is False
        assert (await ask("/thumbs/rollback"))["revision"] == 1
        await running.refused("POST", "/v1/rules/thumbs/rollback?revision=9", status=404)
        await running.refused("POST", "/v1/rules/thumbs/rollback?revision=x", status=400)
        await running.refused("POST", "/v1/rules/none/enable", status=404)
        await running.refused("GET", "/v1/rules/none/history", status=404)
        assert (await ask("/thumbs/enable"))["change"] == "enabled"
        (again,) = await ask("", yaml=RULE, file="/a.yaml", again=True)
        assert (again["change"], again["epoch"]) == ("again", 2)
        other = changed.replace("thumbs\n", "other\n")
        applied = await ask("", yaml=other, file="/a.yaml", prune=True)
        assert [(one["name"], one["change"]) for one in applied] == [("other", "new"), ("thumbs", "deleted")]
        assert await ask("/prune", yaml=RULE, file="/b.yaml") == []
        found = await running.ask("GET", "/v1/rules/thumbs/history")
        assert [(one["action"], one["rule"]["revision"]) for one in found] == [
            ("apply", 0), ("apply", 1), ("enable", 1), ("rollback", 1), ("disable", 2), ("apply", 2), ("apply", 1)
        ]  # fmt: skip
        assert [one["current"] for one in found] == [True] + [False] * 6

    async def test_all_or_none(self, running: Running) -> None:
        broken = RULE + "  - name: broken\n    upon: {type: [x]}\n    run: {functio: f}\n"
        said = await running.refused("POST", "/v1/rules", {"yaml": broken, "file": "my.yaml"}, status=400)
        assert said.error == "RuleError"
        assert said.message.startswith("my.yaml:")
        assert said.detail["line"] > 7
        assert await running.ask("GET", "/v1/rules") == []


class TestInvocations:
    async def test_it_is_in_kafka_and_in_the_store_at_once(self, running: Running, records: Records) -> None:
        function = await running.register()
        body = {"function": "demo.double", "args": [[1, 2.0]], "kwargs": {"k": None}, "timeout": 5, "id": "mine"}
        for _ in range(2):
            assert await running.ask("POST", "/v1/invocations", body, status=202) == {"id": "mine"}
        task = await running.task("mine")
        assert (task.status, task.function, task.version, task.attempts) == ("pending", "demo.double", 1, 0)
        assert [hop.name for hop in task.timings] == ["submitted"]
        batches = await records.read_until(
            records.topics.invocations("local"),
            InvocationBatch,
            lambda found: sum(len(batch.invocations) for batch in found) >= 2,
        )
        batch, sent = batches[0], batches[0].invocations[0]
        assert [one.id for some in batches for one in some.invocations] == ["mine", "mine"]
        assert unpack_call(sent.payload) == ([[1, 2.0]], {"k": None})
        assert (sent.code, sent.timeout, batch.principal) == (function.code, 5.0, "local")

    async def test_what_is_not_there(self, running: Running) -> None:
        await running.register()
        there = {"function": "demo.double"}
        said = await running.refused("POST", "/v1/invocations", {"function": "nothing"}, status=404)
        assert said.error == "FunctionNotFound"
        said = await running.refused("POST", "/v1/invocations", {**there, "site": "moon"}, status=404)
        assert (said.error, "local" in said.message) == ("SiteNotFound", True)
        await running.refused("POST", "/v1/invocations", {**there, "timeout": -1}, status=400)
        await running.refused("POST", "/v1/invocations", {**there, "id": ""}, status=400)
        assert (await running.refused("GET", "/v1/tasks/none", status=404)).error == "TaskNotFound"


class TestTasks:
    async def test_the_whole_way(self, running: Running, records: Records) -> None:
        cause = Cause(rule="thumbs", rule_revision=3, event_id="e1", event_type="upon.file.ready", event_source="/lab",
                      event_subject="/a.png", event_time=1_767_225_599_000_000_000,
                      event_recorded=1_767_225_599_500_000_000)  # fmt: skip
        one = invocation("t1", function="thumbs.make", version=2, cause=cause)
        at = 1_767_225_600_000_000_000
        await records.invocations(InvocationBatch(site="local", principal="r", submitted=at, invocations=(one,)))
        task = await running.task("t1")
        assert (task.status, task.rule, task.rule_revision, task.event_id) == ("pending", "thumbs", 3, "e1")
        await records.results(started=[Started(id="t1", started=1_767_225_600_003_000_000, worker="m1/8")])
        assert (await running.task_with("t1", "running")).attempts == 1
        done = result("t1", {"mean": 3.5}, function="thumbs.make", version=2, cause=cause, stdout="hello\n")
        await records.results(done)
        task = await running.task_with("t1", "succeeded")
        assert task.result == {"mean": 3.5}
        assert task.stdout == "hello\n"
        assert task.event is not None
        assert (task.event.subject, task.event.time) == ("/a.png", "2025-12-31T23:59:59.000000Z")
        assert [hop.name for hop in task.timings] == ["event", "recorded", "submitted", "received", "dispatched",
                                                      "started", "finished", "returned", "stored"]  # fmt: skip
        assert (task.timings[0].after, task.timings[2].after, task.duration) == (0.0, 1000.0, 2.0)

    async def test_results_are_shown_without_running_anything(self, running: Running, records: Records) -> None:
        plain, python = result("plain", [1, None, b"x"]), result("python", {1, 2}, preview="{1, 2}")
        deep: Any = []
        for _ in range(200):
            deep = [deep]
        damaged = result("damaged", payload=b"m\xc1", preview="?")
        failure = Failure(type="ValueError", message="no", traceback="Traceback…", kinds=("ValueError", "Exception"))
        failed = result("failed", status="failed", failure=failure, payload=b"")
        await records.results(plain, python, result("deep", deep), damaged, failed)
        assert (await running.task_with("plain", "succeeded")).result == [1, None, "eA=="]
        assert (await running.task("python")).result == {"python": "{1, 2}"}
        assert (await running.task("damaged")).result == {"python": "?"}
        assert isinstance((await running.task("deep")).result, list)
        task = await running.task("failed")
        assert (task.status, task.result) == ("failed", None)
        assert task.error == api.TaskError(type="ValueError", message="no", traceback="Traceback…")

    async def test_a_result_may_come_first_and_the_first_one_wins(self, running: Running, records: Records) -> None:
        await records.results(result("a", 1))
        await running.task_with("a", "succeeded")
        batch = InvocationBatch(site="local", principal="anna", invocations=(invocation("a"), invocation("b")))
        await records.invocations(batch)
        await records.results(result("a", 2, status="failed"), started=[Started(id="a", started=1, attempt=2)])
        await records.results(result("last", 0))
        await running.task_with("last", "succeeded")
        task = await running.task("a")
        assert (task.status, task.result, task.principal, task.attempts) == ("succeeded", 1, "anna", 1)
        assert (await running.task("b")).status == "pending"

    async def test_listing(self, running: Running, records: Records) -> None:
        def batch(n: int) -> InvocationBatch:
            name = f"f{n % 2}"
            return InvocationBatch(
                site="local", submitted=10**18 + n, invocations=(invocation(f"t{n}", function=name),)
            )

        await records.invocations(*[batch(n) for n in range(6)])
        await records.results(result("t5", function="f1"), result("t4", status="failed", function="f0"))
        await running.task_with("t4", "failed")

        async def ids(query: str) -> list[str]:
            return [one["id"] for one in await running.ask("GET", f"/v1/tasks{query}")]

        assert await ids("") == ["t5", "t4", "t3", "t2", "t1", "t0"]
        assert await ids("?limit=2") == ["t5", "t4"]
        assert await ids("?status=failed") == ["t4"]
        assert await ids("?status=pending&function=f1") == ["t3", "t1"]
        assert await ids("?function=f1@2") == []
        assert await ids("?site=moon") == []
        assert await ids("?rule=none") == []

    async def test_cancel(self, running: Running, records: Records) -> None:
        await running.register()
        await running.ask("POST", "/v1/invocations", {"function": "demo.double", "id": "c1"}, status=202)
        await running.ask("POST", "/v1/tasks/c1/cancel", status=202)
        (cancel,) = await records.read(records.topics.control("local"), Cancel, 1)
        assert cancel.ids == ("c1",)
        await records.results(result("c1", status="cancelled"))
        await running.task_with("c1", "cancelled")
        assert (await running.refused("POST", "/v1/tasks/c1/cancel", status=409)).error == "Conflict"
        await running.refused("POST", "/v1/tasks/none/cancel", status=404)

    async def test_bad_records_do_not_stop_it(self, running: Running, records: Records) -> None:
        topics = records.topics
        await records.write(topics.results, b"\xc1 no message", b"")
        await records.write(topics.invocations("local"), b"neither")
        await records.results(result("nul\x00", stdout="a\x00b"), result("huge", attempts=2**63))
        await records.results(result("not final", status="running"))
        await records.results(result("after"))
        await running.task_with("after", "succeeded")
        assert (await running.task("huge")).attempts == 2**63 - 1

        async def letters() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = await running.ask("GET", "/v1/deadletters")
            return found if len(found) == 3 else []

        found = await eventually(letters, "three dead letters")
        assert {one["part"] for one in found} == {"service"}
        assert all(one["origin"].startswith(topics.results) for one in found)


class TestEvents:
    async def test_one_and_many(self, kafka: str, running: Running, records: Records) -> None:
        one = Event(type="a", source="/x", subject="s", data={"n": 1})
        assert await running.ask("POST", "/v1/events", one.to_dict(), status=202) == {"ids": [one.id]}
        many = [Event(type="a", source="/x", subject=f"s{n % 3}", data=n) for n in range(100)]
        said = await running.ask("POST", "/v1/events", [event.to_dict() for event in many], status=202)
        assert said["ids"] == [event.id for event in many]
        found: dict[str | None, list[Event]] = {}
        count = 0
        async with async_consumer(kafka, "test", [records.topics.events]) as consumer, asyncio.timeout(30):
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
    async def test_sites_come_and_go(self, running: Running, records: Records) -> None:
        (site,) = await running.ask("GET", "/v1/sites")
        assert (site["name"], site["state"], site["slots"], site["busy"]) == ("local", "up", 2, 1)
        assert site["managers"][0]["workers"] == [8, 9]
        await records.announce("alcf", state="down")
        await running.wait_site("alcf")
        (alcf, _) = await running.ask("GET", "/v1/sites")
        assert (alcf["state"], alcf["managers"]) == ("down", [])

    async def test_a_new_site_takes_tasks(self, running: Running, records: Records) -> None:
        await running.register()
        await records.announce("new")
        await running.wait_site("new")
        await running.ask("POST", "/v1/invocations", {"function": "demo.double", "site": "new", "id": "n"}, status=202)
        assert (await running.task("n")).site == "new"

    async def test_status(self, kafka: str, running: Running, records: Records, topics: Topics) -> None:
        await running.ask("POST", "/v1/rules", {"yaml": RULE})
        await running.register()
        for n in range(3):
            await running.ask("POST", "/v1/events", Event(type="a", source="/x").to_dict(), status=202)
            await running.ask("POST", "/v1/invocations", {"function": "demo.double", "id": f"s{n}"}, status=202)
        status = await running.ask("GET", "/v1/status")
        assert (status["kafka"], status["rules"], status["functions"]) == (kafka, 1, 1)
        assert (status["lag"]["streams"], status["lag"]["dispatcher:local"]) == (3, 3), "nobody has read them"
        async with async_consumer(kafka, "test", [topics.events], f"{topics.prefix}.streams") as consumer:
            for _ in range(2):
                record = await consumer.getone()
            await consumer.commit()
        assert record is not None

        async def caught_up() -> bool:
            return bool((await running.ask("GET", "/v1/status"))["lag"] == {"service": 0, "streams": 1,
                                                                           "dispatcher:local": 3})  # fmt: skip

        await eventually(caught_up, "lag of streams is 1")

    async def test_dead_letters_newest_first(self, running: Running, records: Records) -> None:
        now = time.time_ns()
        for n in range(3):
            letter = DeadLetter(id=f"d{n}", origin="t/0/1", part="streams", reason="EventError: no", value=b"\xffx",
                                at=now + n)  # fmt: skip
            await records.write(records.topics.deadletter, letter, letter)

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

    async def test_it_stops_soon_with_clients_attached(self, running: Running) -> None:
        async with running.stream() as stream:
            await stream.ask(api.Attach(request=1, group="g"))
            began = time.monotonic()
            stopping = asyncio.create_task(running.stop())
            message = await stream.socket.receive(timeout=10)
            assert (message.type, stream.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1001)
            assert await stopping == 0
        assert time.monotonic() - began < 5
        lines = [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]
        assert not [line for line in lines if line.get("level") in ("warning", "error", "critical")], lines

    async def test_pickles_are_never_loaded(self, running: Running, records: Records, tmp_path: Any) -> None:
        trap = tmp_path / "loaded"

        class Trap:
            def __reduce__(self) -> Any:
                return open, (str(trap), "w")

        await records.results(result("trap", preview="<trap>", payload=dumps(Trap())))
        assert (await running.task_with("trap", "succeeded")).result == {"python": "<trap>"}
        assert not trap.exists()
