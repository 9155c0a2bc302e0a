"""Records between the parts: readable when older, refused when too new, named when they are none."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon import api, errors
from upon.errors import ConfigError, FunctionNotFound, InputError, RuleError, RuleNotFound, UponError
from upon.ids import new_id, rule_invocation_id
from upon.messages import (
    Cause,
    FunctionCode,
    FunctionRecord,
    Invocation,
    InvocationBatch,
    RegistryRecord,
    RuleActivation,
    RuleActivations,
    RuleRevision,
    decode,
    encode,
    registry_key,
)
from upon.registry import Registry, split_function
from upon.topics import Topics

BATCH = InvocationBatch(site="local", invocations=(Invocation(id="1", code="c", function="f", payload=b"m\x90"),))


def test_what_is_encoded_is_decoded() -> None:
    assert decode(encode(BATCH), InvocationBatch) == BATCH


def test_an_unknown_field_is_ignored_and_a_newer_format_refused() -> None:
    raw = msgspec.msgpack.decode(encode(BATCH))
    assert decode(msgspec.msgpack.encode(raw | {"colour": "red"}), InvocationBatch) == BATCH
    with pytest.raises(InputError, match=r"format 99.*upgrade"):
        decode(msgspec.msgpack.encode(raw | {"format": 99}), InvocationBatch)


@given(st.binary(max_size=50))
def test_other_bytes_are_refused_with_an_error_of_the_tree(data: bytes) -> None:
    with pytest.raises(InputError, match="not a valid InvocationBatch"):
        decode(data, InvocationBatch)


def test_the_registry_gives_versions_and_takes_tombstones() -> None:
    registry = Registry()
    records: list[RegistryRecord] = [
        FunctionCode(hash="c", body=b"", python="3.11"),
        FunctionRecord(name="a.b", version=1, code="c"),
        FunctionRecord(name="a.b", version=2, code="c"),
        RuleRevision(name="r", revision=1, spec={}),
        RuleActivations(number=1, rules=(RuleActivation(rule="r", revision=1), RuleActivation(rule="s"))),
    ]
    for record in records:
        assert decode(encode(record), RegistryRecord) == record  # type: ignore[arg-type]
        registry.apply(record)
    assert registry.function("a.b").version == 2
    assert registry.function("a.b", 1).version == 1
    with pytest.raises(FunctionNotFound, match=r"no version 3; there are: \[1, 2\]"):
        registry.function("a.b", 3)
    with pytest.raises(FunctionNotFound, match=r"'nope' is not registered; there are: a\.b"):
        registry.function("nope")
    for record in records:
        registry.remove(registry_key(record))
    assert registry == Registry()


def test_a_function_reference_is_name_or_name_at_version() -> None:
    assert split_function("a.b") == ("a.b", None)
    assert split_function("a.b@3") == ("a.b", 3)
    with pytest.raises(FunctionNotFound, match="name@version"):
        split_function("a.b@latest")


def test_a_registry_knows_how_a_rule_stood_when() -> None:
    registry = Registry()
    registry.apply(RuleActivations(number=1, rules=(RuleActivation(rule="r", revision=1),)), 100)
    registry.apply(RuleActivations(number=2, rules=(RuleActivation(rule="r"), RuleActivation(rule="s"))), 200)
    registry.apply(RuleActivations(number=3, rules=(RuleActivation(rule="r", revision=2, epoch=2),)), 150)
    stood = [registry.standing_at("r", at) for at in (99, 100, 199, 200, 201)]
    assert [one and one.activation.revision for one in stood] == [None, 1, 1, 0, 2]
    assert registry.standing("r").since == 201, "a clock that went back does not reorder what was done"
    assert (list(registry.rules), registry.last_number) == (["r"], 3)
    for name in ("s", "never"):
        with pytest.raises(RuleNotFound, match=f"'{name}' does not exist; there are: r"):
            registry.standing(name)
    registry.remove(b"activations/3")
    with pytest.raises(RuleNotFound, match="none yet"):
        registry.standing("r")


def test_derived_ids_are_equal_for_equal_firings_only() -> None:
    first = rule_invocation_id("r", "run", 1, "e")
    assert first == rule_invocation_id("r", "run", 1, "e")
    others = [("s", "run", 1, "e"), ("r", "tell", 1, "e"), ("r", "run", 2, "e"), ("r", "run", 1, "f")]
    assert len({first, new_id(), *[rule_invocation_id(*one) for one in others]}) == 6


def test_a_cause_knows_the_depth_of_its_chain() -> None:
    cause = Cause(rule="r", rule_revision=1, event_id="e", event_type="t", event_source="/s")
    assert cause.depth == 1
    assert decode(encode(msgspec.structs.replace(cause, chain={"r": 2, "s": 1})), Cause).depth == 3


def test_topics_are_named_once_and_checked() -> None:
    topics = Topics("lab")
    assert topics.site_of(topics.invocations("alcf")) == "alcf"
    assert topics.site_of(topics.results) is None
    with pytest.raises(ConfigError, match="site 'A/B'"):
        topics.control("A/B")
    with pytest.raises(ConfigError, match="prefix"):
        Topics("a b")


@pytest.mark.parametrize("cls", errors.all_errors().values())
def test_every_error_travels_as_a_problem(cls: type[UponError]) -> None:
    error = cls("what, where, what to do")
    again = api.raised(api.problem(error))
    assert type(again) is cls
    assert str(again) == str(error)


def test_an_error_of_one_package_travels_as_the_class_of_the_tree_that_it_is() -> None:
    class Private(InputError):
        def __init__(self) -> None:
            self.problem = "of its own"
            super().__init__("what is wrong")

    again = api.raised(api.problem(Private()))
    assert type(again) is InputError
    assert str(again) == "what is wrong"


def test_a_rule_error_keeps_its_place() -> None:
    error = RuleError("must be a number", file="rules.yaml", line=3, column=7, field="rules[0].run.timeout")
    again = api.raised(api.problem(error))
    assert str(again) == "rules.yaml:3:7: rules[0].run.timeout: must be a number"
    assert vars(again) == vars(error)
