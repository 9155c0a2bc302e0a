"""What goes of the rules' history decides over nothing, and what is promised stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upon.messages import RuleActivation, RuleActivations, RuleRevision
from upon.registry import Registry
from upon.service.rule_history import prunable

RULES = ("a", "b", "c")


def world(requests: list[dict[str, int]]) -> Registry:
    """Return a registry in which request n, at n·10, put revisions in force by rule; 0 deletes."""
    registry = Registry()
    for number, request in enumerate(requests, 1):
        for rule, revision in request.items():
            if revision:
                registry.apply(RuleRevision(name=rule, revision=revision, spec={}), number * 10)
        rules = tuple(RuleActivation(rule=rule, revision=revision) for rule, revision in request.items())
        registry.apply(RuleActivations(number=number, rules=rules), number * 10)
    return registry


def test_what_no_event_can_meet_goes_with_the_wordings_that_only_it_names() -> None:
    registry = world([{"a": 1, "b": 1}, {"a": 2}, {"a": 3}, {"b": 2}])
    assert list(prunable(registry, before=20, changes=1)) == []
    assert list(prunable(registry, before=31, changes=1)) == [b"activations/2", b"rule/a@2"]
    assert list(prunable(registry, before=41, changes=1)) == [
        b"activations/1", b"activations/2", b"rule/a@1", b"rule/a@2", b"rule/b@1"
    ]  # fmt: skip
    assert list(prunable(registry, before=41)) == [], "the last changes stay, however old"


def test_the_newest_wording_stays_also_of_a_deleted_rule() -> None:
    registry = world([{"a": 1}, {"a": 2}, {"a": 0}])
    assert list(prunable(registry, before=100, changes=1)) == [b"activations/1", b"activations/2", b"rule/a@1"]


@given(
    st.lists(st.dictionaries(st.sampled_from(RULES), st.integers(0, 4), min_size=1), max_size=12),
    st.integers(0, 130),
    st.integers(1, 3),
)
def test_no_event_that_is_there_meets_anything_else(requests: list[dict[str, int]], before: int, changes: int) -> None:
    registry, pruned = world(requests), world(requests)
    last = registry.last_number
    for key in list(prunable(registry, before, changes)):
        pruned.remove(key)
    assert list(prunable(pruned, before, changes)) == []
    assert pruned.last_number == last
    for rule in RULES:
        assert max(pruned.revisions.get(rule, ()), default=0) == max(registry.revisions.get(rule, ()), default=0)
        assert set(registry.timelines.get(rule, [])[-changes:]) <= set(pruned.timelines.get(rule, []))
        for one in pruned.timelines.get(rule, ()):
            assert not one.activation.revision or pruned.revision(rule, one.activation.revision)
        for at in range(before, 140):
            assert pruned.standing_at(rule, at) == registry.standing_at(rule, at)
