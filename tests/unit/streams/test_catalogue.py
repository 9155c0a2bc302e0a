"""The catalogue follows the registry: rules come, change and go; what does not parse is left out."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from upon.messages import (
    FunctionRecord,
    RegistryRecord,
    RuleActivation,
    RuleActivations,
    RuleRevision,
    SiteStatus,
    encode,
    registry_key,
)
from upon.moments import Moment
from upon.streams import catalogue as catalogue_module
from upon.streams.catalogue import Catalogue
from upon.streams.rules import Rule, rule_from_spec

NOW = 10**18


class Feed:
    """Feeds a catalogue, one second after the other."""

    def __init__(self) -> None:
        self.catalogue, self.at, self.number = Catalogue(), NOW, 0

    def records(self, *records: RegistryRecord) -> None:
        for record in records:
            self.at += 1
            self.catalogue.take_registry(registry_key(record), encode(record), self.at)

    def activate(self, *rules: RuleActivation, ends: dict[int, int] | None = None) -> int:
        """Return when Kafka had it."""
        self.number += 1
        self.records(RuleActivations(number=self.number, rules=rules, ends=ends or {}))
        return self.at

    def apply(self, *revisions: RuleRevision) -> int:
        self.records(*revisions)
        return self.activate(*[RuleActivation(rule=one.name, revision=one.revision) for one in revisions])

    def matching(self, kind: str, at: int | None = None) -> list[tuple[str, int]]:
        found = self.catalogue.rules.match({"type": kind}, self.at if at is None else at)
        return [(one.name, one.revision) for one in found]


def rule(name: str, kind: str, revision: int = 1, **keys: Any) -> RuleRevision:
    spec = {"name": name, "upon": {"type": [kind]}, "run": {"function": "f"}, **keys}
    return RuleRevision(name=name, revision=revision, spec=spec)


def test_rules_come_change_and_go() -> None:
    feed = Feed()
    feed.apply(rule("b", "x"), rule("a", "x"))
    assert feed.matching("x") == [("a", 1), ("b", 1)]
    feed.apply(rule("a", "y", 2))
    assert feed.matching("x") == [("b", 1)]
    assert feed.matching("y") == [("a", 2)]
    feed.apply(rule("b", "x", 2, enabled=False))
    assert feed.matching("x") == []
    feed.activate(RuleActivation(rule="a", revision=2, enabled=False))
    assert feed.matching("y") == []
    feed.activate(RuleActivation(rule="a", revision=2))
    assert feed.matching("y") == [("a", 2)]


def test_a_revision_without_an_activation_means_nothing() -> None:
    feed = Feed()
    feed.apply(rule("a", "x"))
    feed.records(rule("a", "y", 2), rule("b", "x"))
    assert feed.matching("x") == [("a", 1)]
    assert feed.matching("y") == []


def test_an_event_meets_what_was_in_force_when_kafka_had_it() -> None:
    feed = Feed()
    first = feed.apply(rule("a", "x"), rule("b", "x"))
    second = feed.apply(rule("a", "x", 2))
    third = feed.activate(RuleActivation(rule="a"), RuleActivation(rule="b", revision=1, epoch=2))
    fourth = feed.activate(RuleActivation(rule="a", revision=1))
    assert feed.matching("x", first - 1) == []
    assert feed.matching("x", first) == [("a", 1), ("b", 1)]
    assert feed.matching("x", second - 1) == [("a", 1), ("b", 1)]
    assert feed.matching("x", second) == [("a", 2), ("b", 1)]
    assert feed.matching("x", third) == [("b", 1)]
    assert feed.matching("x", fourth) == [("a", 1), ("b", 1)]
    epochs = [one.epoch for at in (first, third) for one in feed.catalogue.rules.match({"type": "x"}, at)]
    assert epochs == [1, 1, 2]


def test_a_broker_whose_clock_goes_back_does_not_mix_the_order_up() -> None:
    feed = Feed()
    feed.apply(rule("a", "x"))
    late = feed.at
    feed.at -= 10
    feed.apply(rule("a", "x", 2))
    assert feed.matching("x", late) == [("a", 1)]
    assert feed.matching("x", late + 1) == [("a", 2)]


def test_after_a_clock_was_set_back_events_behind_a_change_meet_it() -> None:
    """By days, say: until the clock is where it was, what comes looks older than every rule."""
    feed = Feed()
    feed.records(rule("a", "x"), rule("a", "x", 2))
    feed.activate(RuleActivation(rule="a", revision=1), ends={0: 10, 1: 20})
    feed.activate(RuleActivation(rule="a", revision=2), ends={0: 30, 1: 20})
    long_ago = NOW - 10**9

    def met(partition: int, offset: int, recorded: int = long_ago) -> list[tuple[str, int]]:
        at = feed.catalogue.registry.time_of(Moment(recorded, partition, offset))
        return feed.matching("x", at)

    assert met(0, 9) == []
    assert met(0, 10) == met(0, 29) == [("a", 1)]
    assert met(0, 30) == met(1, 20) == [("a", 2)]
    assert met(1, 19) == []
    assert met(7, 0) == [("a", 2)], "a partition that came later"
    assert met(0, 3, feed.at) == [("a", 2)], "a topic that was made anew: time decides"
    feed.at = long_ago
    feed.records(rule("b", "x"))
    feed.activate(RuleActivation(rule="b", revision=1), ends={0: 40, 1: 40})
    assert met(1, 39) == [("a", 2)]
    assert met(1, 40) == [("a", 2), ("b", 1)]


def test_other_records_leave_the_index_alone() -> None:
    feed = Feed()
    feed.apply(rule("a", "x"))
    assert len(feed.catalogue.rules) == 1
    feed.records(FunctionRecord(name="f", version=1, code="c"))
    feed.catalogue.take_site(encode(SiteStatus(site="local", pid=1, host="h", at=1)), NOW)
    assert list(feed.catalogue.renew()) == []
    assert feed.catalogue.registry.function("f").code == "c"
    assert "local" in feed.catalogue.registry.sites


def test_what_does_not_parse_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()
    feed.apply(rule("a", "x"), rule("b", "x"), rule("c", "x"))
    feed.apply(rule("a", "x", 2, where="1 +"))
    feed.activate(RuleActivation(rule="never-seen", revision=7))

    def broken(spec: dict[str, Any], *, revision: int, file: str) -> Rule:
        if spec["name"] == "c":
            raise RecursionError("deep")
        return rule_from_spec(spec, revision=revision, file=file)

    monkeypatch.setattr(catalogue_module, "rule_from_spec", broken)
    feed.apply(rule("c", "x", 2))
    feed.catalogue.take_registry(b"rule/c", b"\xc1", 1)
    feed.catalogue.take_registry(b"\xff\xff", None, 1)
    feed.catalogue.take_registry(b"rule/c@x", None, 1)
    feed.catalogue.take_site(b"\xc1", NOW)
    feed.catalogue.take_site(None, NOW)
    assert feed.matching("x") == [("b", 1)]


async def test_others_get_their_turn_while_many_rules_are_compiled() -> None:
    """At the start, after a change of many rules, and when an event comes that is older than that."""
    feed, many = Feed(), 300
    for revision in (1, 2):
        for first in range(0, many, 100):
            feed.apply(*[rule(f"r{number}", f"t{number}", revision) for number in range(first, first + 100)])
    compiled: list[int] = []
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(compiled))
            await asyncio.sleep(0)

    compile_one = feed.catalogue._compiled
    feed.catalogue._compiled = lambda *of: compiled.append(1) or compile_one(*of)  # type: ignore[method-assign, func-returns-value]
    other = asyncio.create_task(others())
    await feed.catalogue.renewed()
    assert len(compiled) == many, "what was is not compiled before it is needed"
    rules = await feed.catalogue.renewed(NOW)
    other.cancel()
    assert len(compiled) == 2 * many
    assert max(after - before for before, after in pairwise(turns)) <= catalogue_module.RULES_AT_ONCE
    assert [one.revision for one in rules.match({"type": "t7"}, NOW + 101)] == [1]
    assert [one.revision for one in rules.match({"type": "t7"}, feed.at)] == [2]


def test_what_is_pruned_of_the_past_is_forgotten() -> None:
    feed = Feed()
    first = feed.apply(rule("a", "x"))
    feed.apply(rule("a", "y", 2))
    feed.apply(rule("a", "z", 3))
    assert feed.matching("x", first) == [("a", 1)]
    feed.catalogue.take_registry(b"activations/1", None, feed.at)
    assert feed.matching("x", first) == []
    assert feed.matching("z") == [("a", 3)]
