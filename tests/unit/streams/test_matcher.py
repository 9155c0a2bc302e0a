"""The index gives what testing every rule would give, and tests few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from upon.streams.matcher import Matcher
from upon.streams.patterns import Pattern, parse_pattern


@dataclass(frozen=True)
class Numbered:
    number: int
    pattern: Pattern
    enabled: bool = True


def index(specs: list[dict[str, Any]]) -> tuple[Matcher[Numbered], list[Numbered]]:
    rules = [Numbered(number, parse_pattern(spec)) for number, spec in enumerate(specs)]
    return Matcher(rules), rules


texts = st.sampled_from(["", "a", "ab", "abc", "b", "ba", "A", "1"])
words = st.sampled_from(["a", "ab", "abc", "b", "ba", "A", "1"])
scalars = st.one_of(texts, st.sampled_from([0, 1, 1.0, 2, -1, 0.5, True, False, None]))
alternatives = st.one_of(
    scalars,
    texts.map(lambda text: {"prefix": text}),
    words.map(lambda text: {"suffix": text}),
    st.sampled_from(["a*", "*b", "*", "a*c", "b"]).map(lambda text: {"wildcard": text}),
    words.map(lambda text: {"equals-ignore-case": text}),
    st.booleans().map(lambda flag: {"exists": flag}),
    st.sampled_from([["=", 1], [">", 0], ["<=", 1], [">=", 0, "<", 2]]).map(lambda test: {"numeric": test}),
    st.lists(scalars, min_size=1, max_size=3).map(lambda values: {"anything-but": values}),
)
fields = st.lists(alternatives, min_size=1, max_size=3)
names = st.sampled_from(["a", "b", "c"])
data_patterns = st.recursive(
    st.dictionaries(names, fields, min_size=1, max_size=3),
    lambda inner: st.one_of(
        st.dictionaries(names, st.one_of(fields, inner), min_size=1, max_size=3),
        st.lists(inner, min_size=2, max_size=3).map(lambda each: {"$or": each}),
    ),
    max_leaves=4,
)
patterns = st.dictionaries(st.sampled_from(["type", "source", "subject", "ext"]), fields, max_size=3).flatmap(
    lambda top: (
        data_patterns.map(lambda data: {**top, "data": data})
        if not top
        else st.just(top) | data_patterns.map(lambda data: {**top, "data": data})
    )
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
events = st.fixed_dictionaries(
    {"type": texts, "source": texts},
    optional={"subject": texts, "ext": scalars, "data": st.dictionaries(names, values, max_size=3) | values},
)


@settings(max_examples=120, deadline=None)
@given(st.lists(patterns, max_size=25), st.lists(events, min_size=1, max_size=6))
def test_the_index_equals_testing_every_rule(specs: list[dict[str, Any]], happened: list[dict[str, Any]]) -> None:
    matcher, rules = index(specs)
    for event in happened:
        assert matcher.match(event) == [rule for rule in rules if rule.pattern.matches(event)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(patterns, max_size=15),
    st.lists(st.tuples(patterns, st.integers(0, 30)), max_size=30),
    st.lists(events, min_size=1, max_size=4),
)
def test_rules_that_come_and_go_leave_the_index_as_if_made_anew(
    first: list[dict[str, Any]], changes: list[tuple[dict[str, Any], int]], happened: list[dict[str, Any]]
) -> None:
    matcher, rules = index(first)
    kept = dict(enumerate(rules))
    for number, (spec, gone) in enumerate(changes, len(first)):
        rule = Numbered(number, parse_pattern(spec))
        kept[matcher.add(rule)] = rule
        if gone in kept:
            matcher.remove(gone)
            del kept[gone]
    assert len(matcher) == len(kept)
    for event in happened:
        assert matcher.match(event) == [rule for rule in kept.values() if rule.pattern.matches(event)]


def test_rules_on_fields_of_their_own_are_taken_and_few_are_tested() -> None:
    specs: list[dict[str, Any]] = [{"data": {f"field{i}": ["x"], f"b{i % 7}": {"c": ["y"]}}} for i in range(3000)]
    matcher, rules = index(specs[:2000])
    for spec in specs[2000:]:
        rules.append(Numbered(len(rules), parse_pattern(spec)))
        matcher.add(rules[-1])
    event = {"type": "t", "data": {"field17": "x", "field2500": ["x"], "b3": {"c": "y"}, "b1": [{"c": "y"}]}}
    assert matcher.match(event) == [rules[17], rules[2500]]
    assert len(matcher.candidates({"type": "t", "data": {"field17": "x"}})) <= 1


def test_many_fields_in_rules_that_are_alike_do_not_nest_without_end() -> None:
    spec = {"data": {f"field{i}": ["x"] for i in range(1500)}}
    matcher, rules = index([spec] * 5)
    assert matcher.match({"data": {f"field{i}": "x" for i in range(1500)}}) == rules
    assert matcher.match({"data": {f"field{i}": "x" for i in range(1499)}}) == []


def test_a_change_does_not_touch_the_other_rules() -> None:
    matcher, _ = index([{"type": [f"t{i % 50}"], "subject": [{"prefix": f"/{i}/"}]} for i in range(3000)])
    places = {handle: list(map(id, nodes)) for handle, nodes in matcher._places.items()}
    handle = matcher.add(Numbered(3000, parse_pattern({"type": ["t7"], "subject": [{"prefix": "/7/"}]})))
    matcher.remove(handle)
    moved = [one for one, nodes in places.items() if nodes != list(map(id, matcher._places[one]))]
    assert len(moved) <= 4


def test_few_rules_are_tested_among_thousands() -> None:
    specs = [{"type": [f"lab.{i}"], "source": [{"prefix": f"/s/{i}"}]} for i in range(2000)]
    specs += [{"type": ["upon.file.ready"], "subject": [{"wildcard": f"/data/{i:04}/*.h5"}]} for i in range(2000)]
    specs += [{"type": ["upon.file.ready"], "data": {"sample": [f"S-{i}"]}} for i in range(2000)]
    specs += [{"source": [{"exists": True}]}]
    matcher, rules = index(specs)
    event = {"type": "upon.file.ready", "source": "/x", "subject": "/data/0007/a.h5", "data": {"sample": "S-1999"}}
    assert matcher.match(event) == [rules[2007], rules[5999], rules[6000]]
    assert len(matcher.candidates(event)) <= 5


def test_a_rule_with_many_alternatives_is_still_found() -> None:
    many = [f"v{i}" for i in range(300)]
    specs: list[dict[str, Any]] = [{"type": many, "source": many, "subject": many} for _ in range(5)]
    specs += [{"type": many[:20], "source": many[:20], "subject": many[:20]} for _ in range(5)]
    matcher, rules = index(specs)
    assert matcher.match({"type": "v0", "source": "v1", "subject": "v2"}) == rules
    assert matcher.match({"type": "v0", "source": "v1", "subject": "v299"}) == rules[:5]


def test_disabled_rules_do_not_match() -> None:
    pattern = parse_pattern({"type": ["x"]})
    matcher = Matcher([Numbered(0, pattern, enabled=False), Numbered(1, pattern)])
    assert [rule.number for rule in matcher.match({"type": "x"})] == [1]
    assert len(matcher) == 1


def test_no_rules_match_nothing() -> None:
    assert Matcher[Numbered]([]).match({"type": "x"}) == []
