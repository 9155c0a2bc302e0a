"""What a request makes of the rules: revisions, epochs, all or nothing; fed record by record like the registry."""

from __future__ import annotations

from typing import Any

import pytest

from upon.errors import InputError, RuleNotFound
from upon.messages import RegistryRecord, RuleActivation, encode
from upon.registry import Registry
from upon.service import rule_changes
from upon.service.rule_changes import Plan

FILE = "/lab/rules.yaml"


def spec(name: str, arg: Any = 1) -> tuple[str, dict[str, Any]]:
    return name, {"name": name, "upon": {"type": ["t"]}, "run": {"function": "f", "args": [arg]}}


class World:
    """A registry that takes in what is planned, one second after the other."""

    def __init__(self) -> None:
        self.registry, self.at = Registry(), 0

    def write(self, plan: Plan) -> list[tuple[str, str, int, int]]:
        self.at += 1
        records: list[RegistryRecord] = [*plan.revisions, *([plan.activations] if plan.activations else [])]
        for one in records:
            encode(one)
            self.registry.apply(one, self.at)
        return [(one.name, one.change, one.activation.revision, one.activation.epoch) for one in plan.changes]

    def apply(self, *rules: tuple[str, dict[str, Any]], file: str = FILE, **how: bool) -> Any:
        return self.write(rule_changes.apply(self.registry, rules, file=file, principal="ann", **how))

    def standing(self, name: str) -> RuleActivation:
        return self.registry.standing(name).activation


@pytest.fixture
def world() -> World:
    return World()


def test_one_true_and_one_point_zero_are_three_wordings(world: World) -> None:
    found = [world.apply(spec("r", value))[0] for value in (1, True, 1.0, 1, False, 0)]
    assert [(change, revision) for _, change, revision, _ in found] == [
        ("new", 1), ("changed", 2), ("changed", 3), ("changed", 1), ("changed", 4), ("changed", 5)
    ]  # fmt: skip


def test_the_order_of_keys_is_no_change(world: World) -> None:
    name, one = spec("r")
    world.apply((name, one))
    assert world.apply((name, dict(reversed(one.items())))) == [("r", "unchanged", 1, 1)]
    assert world.registry.last_number == 1, "nothing is written when nothing changes"


def test_an_edit_leaves_the_epoch_and_again_raises_it(world: World) -> None:
    world.apply(spec("r"), spec("s"))
    assert world.apply(spec("r", 2), spec("s")) == [("r", "changed", 2, 1), ("s", "unchanged", 1, 1)]
    assert world.apply(spec("r", 2), again=True) == [("r", "again", 2, 2)]
    assert world.apply(spec("r", 3), spec("new"), again=True) == [("r", "changed", 3, 3), ("new", "new", 1, 1)]
    assert world.standing("s").epoch == 1


def test_delete_keeps_numbers_and_epoch(world: World) -> None:
    world.apply(spec("r"))
    world.apply(spec("r"), again=True)
    assert world.write(rule_changes.delete(world.registry, ["r"], principal="ann")) == [("r", "deleted", 0, 2)]
    with pytest.raises(RuleNotFound):
        rule_changes.delete(world.registry, ["r"], principal="ann")
    assert world.apply(spec("r", 2)) == [("r", "new", 2, 2)]
    assert world.apply(spec("r")) == [("r", "changed", 1, 2)]


def test_one_record_puts_a_whole_request_in_force(world: World) -> None:
    plan = rule_changes.apply(world.registry, [spec("a"), spec("b"), spec("c")], file=FILE, principal="ann")
    assert plan.activations is not None
    assert [one.rule for one in plan.activations.rules] == ["a", "b", "c"]
    for one in plan.revisions:
        world.registry.apply(one, 1)
    assert world.registry.rules == {}, "revisions alone, as after a crash, put nothing in force"
    assert [one[2] for one in world.apply(spec("a", 9), spec("b"))] == [2, 1]


def test_prune_takes_what_the_file_no_longer_names_and_nothing_else(world: World) -> None:
    world.apply(spec("a"), spec("b"))
    world.apply(spec("elsewhere"), file="/other/rules.yaml")
    assert world.apply(spec("a"), prune=True) == [("a", "unchanged", 1, 1), ("b", "deleted", 0, 1)]
    assert sorted(world.registry.rules) == ["a", "elsewhere"]
    plan = rule_changes.prune(world.registry, [], file=FILE, principal="ann")
    assert world.write(plan) == [("a", "deleted", 0, 1)]


def test_what_was_disabled_by_hand_stays_so(world: World) -> None:
    world.apply(spec("r"))

    def enable(enabled: bool) -> Any:
        return world.write(rule_changes.enable(world.registry, ["r"], enabled=enabled, principal="ann"))

    assert enable(False) == [("r", "disabled", 1, 1)]
    assert enable(False) == [("r", "unchanged", 1, 1)]
    world.apply(spec("r", 2))
    assert (world.standing("r").enabled, world.standing("r").revision) == (False, 2)
    assert enable(True) == [("r", "enabled", 2, 1)]


def test_rollback_goes_to_what_was_in_force_before_or_to_a_number(world: World) -> None:
    for value in (1, 2, 3):
        world.apply(spec("r", value))

    def rollback(revision: int | None = None) -> Any:
        return world.write(rule_changes.rollback(world.registry, "r", revision, principal="ann"))

    assert rollback() == [("r", "rolled back", 2, 1)]
    assert rollback(1) == [("r", "rolled back", 1, 1)]
    assert rollback(1) == [("r", "unchanged", 1, 1)]
    with pytest.raises(RuleNotFound, match=r"no revision 9; there are: \[1, 2, 3\]"):
        rollback(9)
    world.apply(spec("only"))
    with pytest.raises(RuleNotFound, match="no revision before 1"):
        rule_changes.rollback(world.registry, "only", None, principal="ann")


def test_a_name_twice_is_refused(world: World) -> None:
    with pytest.raises(InputError, match="'a' is used twice"):
        world.apply(spec("a"), spec("a", 2))


def test_what_no_record_can_hold_is_refused_before_anything_is_written(world: World) -> None:
    with pytest.raises(InputError, match="rule 'r': cannot be stored"):
        world.apply(spec("r", 2**64))
