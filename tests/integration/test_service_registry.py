"""Functions and rules, as the service keeps them, on real Kafka."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.services import RULE, Running, service
from upon import api
from upon.messages import (
    RegistryRecord,
    RuleActivations,
    RuleRevision,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestFunctions:
    async def test_versions(self, alone: Running) -> None:
        first = await alone.register(body=b"one")
        again = await alone.register(body=b"one")
        second = await alone.register(body=b"two")
        assert (first.version, again.version, second.version) == (1, 1, 2)
        assert again == first
        assert (await alone.ask("GET", "/v1/functions/demo.double"))["version"] == 2
        assert (await alone.ask("GET", "/v1/functions/demo.double@1"))["code"] == first.code
        assert [one["version"] for one in await alone.ask("GET", "/v1/functions")] == [2, 1]

    async def test_many_at_once_get_versions_of_their_own(self, running: Running) -> None:
        found = await asyncio.gather(*(running.register("demo.many", b"%d" % (n % 10)) for n in range(40)))
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

    async def test_versions_are_deleted_and_their_numbers_not_given_again(self, alone: Running) -> None:
        for body in (b"one", b"two"):
            await alone.register(body=body)
        path = "/v1/functions/demo.double"
        pinned = RULE.replace("thumbs.make", "demo.double@2")
        await alone.ask("POST", "/v1/rules", {"yaml": pinned})
        said = await alone.refused("DELETE", path, status=409)
        assert (said.error, "rule thumbs runs" in said.message) == ("Conflict", True)
        await alone.refused("DELETE", f"{path}@2?force=yes", status=400)
        await alone.refused("DELETE", f"{path}@7", status=404)
        (gone,) = await alone.ask("DELETE", f"{path}@2?force=true")
        assert (gone["version"], gone["rules"], gone["source"]) == (2, ["thumbs"], "")
        assert (await alone.ask("GET", path))["version"] == 1
        assert "is deleted" in (await alone.refused("GET", f"{path}@2", status=404)).message
        await alone.refused("POST", "/v1/invocations", {"function": "demo.double@2"}, status=404)
        assert (await alone.register(body=b"two")).version == 3
        listed = await alone.ask("GET", f"{path}/versions")
        assert [(one["version"], one["newest"], one["rules"], bool(one["deleted"])) for one in listed] == [
            (3, True, [], False), (2, False, ["thumbs"], True), (1, False, [], False)
        ]  # fmt: skip
        assert [one["version"] for one in await alone.ask("DELETE", f"{path}?force=true")] == [1, 3]
        assert await alone.ask("GET", "/v1/functions") == []
        assert len(await alone.ask("GET", f"{path}/versions")) == 3
        await alone.refused("GET", "/v1/functions/demo.treble/versions", status=404)
        (warned,) = await alone.ask("POST", "/v1/rules/check", {"yaml": pinned})
        assert "function 'demo.double' is deleted" in warned["warnings"][0]

    async def test_two_at_once_and_another_service_agree(self, kafka: str, alone: Running) -> None:
        await alone.register(body=b"one")
        store = f"sqlite:///{alone.home}/service/tasks.db"  # whoever shares it takes turns
        async with service(kafka, alone.topics, UPON_DATABASE=store) as other:

            async def life(one: Running, n: int) -> int:
                version = (await one.register(body=b"%d" % n)).version
                await one.ask("DELETE", f"/v1/functions/demo.double@{version}")
                return version

            some = [life((alone, other)[n % 2], n) for n in range(20)]
            assert sorted(await asyncio.gather(*some)) == list(range(2, 22))
            assert (await other.register(body=b"last")).version == 22
            assert (await alone.ask("GET", "/v1/functions/demo.double@1"))["version"] == 1

    async def test_they_survive_a_restart(self, kafka: str, running: Running) -> None:
        first = await running.register(body=b"one")
        async with service(kafka, running.topics) as other:
            assert (await other.register(body=b"one")) == first


class TestRules:
    async def test_a_wording_keeps_its_revision_and_a_new_one_gets_a_new_number(self, alone: Running) -> None:
        async def apply(text: str) -> tuple[int, str]:
            (one,) = await alone.ask("POST", "/v1/rules", {"yaml": text})
            return one["revision"], one["change"]

        changed = RULE.replace("${subject}", "${id}")
        assert await apply(RULE) == (1, "new")
        assert await apply(RULE) == (1, "unchanged")
        assert await apply(changed) == (2, "changed")
        assert await apply(RULE) == (1, "changed")
        await alone.ask("DELETE", "/v1/rules/thumbs")
        assert await alone.ask("GET", "/v1/rules") == []
        assert (await alone.refused("DELETE", "/v1/rules/thumbs", status=404)).error == "RuleNotFound"
        assert await apply(changed) == (2, "new")
        assert await apply(RULE.replace("${subject}", "${time}")) == (3, "changed")
        assert [one["revision"] for one in await alone.ask("GET", "/v1/rules")] == [3]
        union: Any = RegistryRecord  # mypy takes a union for no type that can be passed
        found: list[Any] = await alone.records.read(alone.records.topics.registry, union, 9)
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

    async def test_disable_rollback_history_and_prune(self, alone: Running) -> None:
        async def ask(path: str, **body: Any) -> Any:
            return await alone.ask("POST", f"/v1/rules{path}", body or None)

        changed = RULE.replace("${subject}", "${id}")
        await ask("", yaml=RULE, file="/a.yaml")
        (one,) = await ask("", yaml=changed, file="/a.yaml")
        assert (one["revision"], one["change"], one["enabled"]) == (2, "changed", True)
        assert "function 'thumbs.make' is not registered" in one["warnings"][0]
        (plan,) = await ask("/check", yaml=RULE, file="/a.yaml")
        assert (plan["revision"], plan["change"]) == (1, "changed")
        assert (await alone.ask("GET", "/v1/rules"))[0]["revision"] == 2, "check changes nothing"
        assert (await ask("/thumbs/disable"))["enabled"] is False
        assert (await ask("/thumbs/rollback"))["revision"] == 1
        await alone.refused("POST", "/v1/rules/thumbs/rollback?revision=9", status=404)
        await alone.refused("POST", "/v1/rules/thumbs/rollback?revision=x", status=400)
        await alone.refused("POST", "/v1/rules/none/enable", status=404)
        await alone.refused("GET", "/v1/rules/none/history", status=404)
        assert (await ask("/thumbs/enable"))["change"] == "enabled"
        (again,) = await ask("", yaml=RULE, file="/a.yaml", again=True)
        assert (again["change"], again["epoch"]) == ("again", 2)
        other = changed.replace("thumbs\n", "other\n")
        applied = await ask("", yaml=other, file="/a.yaml", prune=True)
        assert [(one["name"], one["change"]) for one in applied] == [("other", "new"), ("thumbs", "deleted")]
        assert await ask("/prune", yaml=RULE, file="/b.yaml") == []
        found = await alone.ask("GET", "/v1/rules/thumbs/history")
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
