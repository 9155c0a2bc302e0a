"""What deleting versions of a function means, fed record by record like the registry."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.errors import Conflict, FunctionNotFound, InputError
from upon.messages import FunctionRecord, RegistryRecord, RuleActivation, RuleActivations, decode, encode, registry_key
from upon.registry import Registry
from upon.service import rule_changes
from upon.service.function_changes import deletion, users


class World:
    """A registry of functions, written as the service writes it; `log` is what a compacted topic keeps."""

    def __init__(self) -> None:
        self.registry, self.log, self.at = Registry(), dict[bytes, bytes](), 0

    def write(self, *records: RegistryRecord) -> None:
        for one in records:
            self.at += 1
            self.log[registry_key(one)] = encode(one)
            self.registry.apply(one, self.at)

    def register(self, code: str, name: str = "f") -> int:
        version = self.registry.next_version(name)
        self.write(FunctionRecord(name=name, version=version, code=code, source="text", created=1))
        return version

    def rule(self, name: str, function: str) -> None:
        spec = {"name": name, "upon": {"type": ["t"]}, "run": {"function": function}}
        plan = rule_changes.apply(self.registry, [(name, spec)], file="f.yaml", principal="ann")
        assert plan.activations is not None
        self.write(*plan.revisions, plan.activations)

    def delete(self, function: str, *, force: bool = False) -> list[int]:
        gone = deletion(self.registry, function, force=force, principal="ann", now=7)
        self.write(*gone)
        return [one.version for one in gone]

    def read_anew(self) -> Registry:
        found = Registry()
        for value in self.log.values():
            record: RegistryRecord = decode(value, RegistryRecord)  # type: ignore[arg-type]
            found.apply(record, 1)
        return found


@pytest.fixture
def world() -> World:
    found = World()
    for code in ("one", "two", "three"):
        found.register(code)
    return found


def test_the_version_before_is_the_newest_then_and_no_number_is_given_twice(world: World) -> None:
    assert world.delete("f@3") == [3]
    assert world.registry.function("f").version == 2
    assert world.register("three") == 4
    assert world.delete("f") == [1, 2, 4]
    with pytest.raises(FunctionNotFound, match="function 'f' is deleted; there are: none yet"):
        world.registry.function("f")
    assert world.register("one") == 5
    assert world.read_anew().next_version("f") == 6
    assert world.read_anew().function("f").code == "one"


def test_what_is_left_has_no_source_text_and_says_who(world: World) -> None:
    world.delete("f@2")
    left = world.read_anew().deleted["f"][2]
    assert (left.source, left.deleted, left.deleted_by, left.code) == ("", 7, "ann", "two")
    with pytest.raises(FunctionNotFound, match=r"version 2 of function 'f' is deleted; there are: \[1, 3\]"):
        world.delete("f@2")


def test_what_rules_run_stays_unless_forced(world: World) -> None:
    world.rule("pins", "f@1")
    world.rule("takes-the-newest", "f")
    world.rule("other", "g")
    assert users(world.registry, "f") == {1: ["pins"], 3: ["takes-the-newest"]}
    with pytest.raises(Conflict, match=r"function f@1 is what rule pins runs: .* --force"):
        world.delete("f@1")
    with pytest.raises(Conflict, match="rules pins, takes-the-newest run: change or delete them first"):
        world.delete("f")
    assert world.delete("f@2") == [2], "nobody runs it"
    assert world.delete("f@3", force=True) == [3]
    assert users(world.registry, "f") == {1: ["pins", "takes-the-newest"]}


def test_a_deleted_rule_runs_nothing_and_a_disabled_one_may_again(world: World) -> None:
    world.rule("r", "f")
    disabled = rule_changes.enable(world.registry, ["r"], enabled=False, principal="ann").activations
    assert disabled is not None
    world.write(disabled)
    with pytest.raises(Conflict, match="rule r runs"):
        world.delete("f@3")
    gone = rule_changes.delete(world.registry, ["r"], principal="ann").activations
    assert gone is not None
    world.write(gone)
    assert world.delete("f@3") == [3]


def test_many_rules_are_named_in_part(world: World) -> None:
    for n in range(30):
        world.rule(f"r{n:02}", "f")
    with pytest.raises(Conflict, match=r"r00, .*r19 and 10 more run"):
        world.delete("f")


@pytest.mark.parametrize("wrong", ["", "g", "f@9", "f@x", "f@0", "f@" + "9" * 99])
def test_what_is_not_there_is_said(world: World, wrong: str) -> None:
    with pytest.raises((FunctionNotFound, InputError)):
        world.delete(wrong)


def test_a_rule_whose_revision_cannot_be_read_is_passed_over(world: World) -> None:
    world.write(RuleActivations(number=9, rules=(RuleActivation(rule="odd", revision=4),)))
    assert users(world.registry, "f") == {}


@given(st.lists(st.one_of(st.sampled_from(["register", "f"]), st.integers(1, 6).map(lambda n: f"f@{n}")), max_size=30))
def test_however_they_come_and_go_each_number_is_given_once(steps: list[str]) -> None:
    world, given_before = World(), list[int]()
    for n, step in enumerate(steps):
        if step == "register":
            given_before.append(world.register(f"code{n}"))
        else:
            with suppress(FunctionNotFound):
                world.delete(step)
        anew = world.read_anew()
        assert (anew.functions, anew.deleted) == (world.registry.functions, world.registry.deleted)
    assert given_before == list(range(1, len(given_before) + 1))
