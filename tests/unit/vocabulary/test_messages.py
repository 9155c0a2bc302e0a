"""Records between the parts: readable when older, refused when too new, named when they are none."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon import api, errors
from upon.errors import ConfigError, FunctionNotFound, InputError, RuleError, UponError
from upon.ids import new_id, rule_invocation_id
from upon.messages import (
    FunctionCode,
    FunctionRecord,
    Invocation,
    InvocationBatch,
    RegistryRecord,
    RuleRecord,
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
        RuleRecord(name="r", version=1, spec={}),
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


def test_derived_ids_are_equal_for_equal_firings_only() -> None:
    first = rule_invocation_id("r", 1, "e")
    assert first == rule_invocation_id("r", 1, "e")
    assert len({first, rule_invocation_id("r", 2, "e"), rule_invocation_id("r", 1, "f"), new_id()}) == 4


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
