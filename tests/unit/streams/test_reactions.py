"""From a record to invocations and dead letters: pure, deterministic, and never an exception."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.chains import CHAIN, ROOT
from upon.deadletters import ONLY_RULE, Received
from upon.events import BATCH, Event, from_dict, time_ns
from upon.ids import rule_invocation_id
from upon.messages import MAX_PAYLOAD, FunctionRecord, Invocation, SiteStatus, decode, encode
from upon.registry import SITE_SILENT, Registry
from upon.serialize import loads_plain
from upon.streams.conditions import Scope
from upon.streams.firing import Firing, Refusal, choose_site, fire
from upon.streams.reactions import MAX_BAD, SLICE, Reaction
from upon.streams.reactions import react as slices_of
from upon.streams.rules import Rule, rule_from_spec
from upon.streams.timeline import RulesOverTime

NOW = 1_000_000_000


def react(*arguments: Any) -> Reaction:
    """Return all slices as one."""
    found = list(slices_of(*arguments))
    return Reaction(tuple(f for one in found for f in one.fired), tuple(x for one in found for x in one.letters))


def rule(**keys: Any) -> Rule:
    run = {"function": "f", "args": ["${subject}"], **keys.pop("run", {})}
    return rule_from_spec({"name": "r", "upon": {"type": ["t"]}, "run": run, **keys}, revision=3)


def registry(*sites: tuple[str, str]) -> Registry:
    view = Registry()
    view.apply(FunctionRecord(name="f", version=1, code="c1"))
    view.apply(FunctionRecord(name="f", version=2, code="c2"))
    for name, state in sites:
        view.apply_site(SiteStatus(site=name, pid=1, host="h", at=1, state=state), NOW)  # type: ignore[arg-type]
    return view


def event(**keys: Any) -> Event:
    return Event(**{"type": "t", "source": "/s", "id": "1", "subject": "S", "time": "2026-11-21T10:00:00Z", **keys})


def record(*events: Any, batch: bool = False, headers: tuple[tuple[str, bytes], ...] = ()) -> Received:
    values = [one.to_dict() if isinstance(one, Event) else one for one in events]
    value = json.dumps(values if batch else values[0]).encode()
    return Received("events", 2, 7, b"key", value, headers, recorded=5)


def test_an_invocation_has_everything_it_needs() -> None:
    outcome = fire(rule(run={"timeout": 2}), Scope(event()), registry(), 5, now=NOW)
    assert isinstance(outcome, Firing)
    one = outcome.invocation
    assert (outcome.site, one.function, one.version, one.code, one.timeout) == ("local", "f", 2, "c2", 2.0)
    assert loads_plain(one.payload) == [["S"], {}]
    assert one.id == rule_invocation_id("r", "run", 1, "/s\x001")
    assert one.cause is not None
    assert one.cause.event_time == time_ns("2026-11-21T10:00:00Z")
    assert (one.cause.rule, one.cause.rule_revision, one.cause.event_recorded) == ("r", 3, 5)


def test_a_named_version_is_taken() -> None:
    outcome = fire(rule(run={"function": "f@1"}), Scope(event()), registry(), 5, now=NOW)
    assert isinstance(outcome, Firing)
    assert outcome.invocation.code == "c1"


def test_once_decides_the_id() -> None:
    keyed = rule(once="subject")
    ids = {
        outcome.invocation.id
        for number in range(3)
        if isinstance(outcome := fire(keyed, Scope(event(id=str(number))), registry(), 5, now=NOW), Firing)
    }
    assert ids == {rule_invocation_id("r", "run", 1, "S")}


def test_a_condition_that_is_false_does_nothing() -> None:
    assert fire(rule(where="subject == 'other'"), Scope(event()), registry(), 5, now=NOW) is None


def test_what_fails_is_refused_with_its_place() -> None:
    view = registry()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"where": "subject"}, "rule r: where: 'subject': a condition gives true or false"),
        ({"where": "data.x > 1"}, "rule r: where: 'data.x > 1': "),
        ({"once": "data"}, "rule r: once: 'data': a key cannot be null"),
        ({"run": {"args": ["${nope}"]}}, "rule r: args: 'nope': the event has no nope"),
        ({"run": {"kwargs": {"a": "x ${1/0}"}}}, "rule r: kwargs: '1/0': division by zero"),
        ({"run": {"function": "g"}}, "rule r: function: FunctionNotFound: function 'g' is not registered"),
        ({"run": {"function": "f@9"}}, "rule r: function: FunctionNotFound: function 'f' has no version 9"),
    ]
    for keys, reason in cases:
        outcome = fire(rule(**keys), Scope(event()), view, 5, now=NOW)
        assert isinstance(outcome, Refusal), keys
        assert outcome.reason.startswith(reason)


def test_arguments_over_the_limit_are_refused() -> None:
    outcome = fire(rule(run={"args": ["${data}"]}), Scope(event(data="x" * MAX_PAYLOAD)), registry(), 5, now=NOW)
    assert isinstance(outcome, Refusal)
    assert "PayloadTooLarge" in outcome.reason


def test_the_first_site_that_is_up_is_chosen() -> None:
    view = registry(("a", "down"), ("b", "up"), ("c", "up"))
    assert choose_site(["x", "a", "c", "b"], view, NOW) == "c"
    assert choose_site(["x", "a"], view, NOW) == "a"
    assert choose_site(["x", "y"], view, NOW) == "x"


def test_a_site_that_was_not_heard_of_for_long_is_not_up() -> None:
    view = registry(("a", "up"), ("b", "up"))
    silent = NOW + int(SITE_SILENT * 1e9) + 1
    assert choose_site(["a", "b"], view, silent - 1) == "a"
    view.apply_site(view.sites["b"], silent)
    assert choose_site(["a", "b"], view, silent) == "b"
    assert (view.is_up("a", silent), view.is_up("b", silent), view.is_up("x", silent)) == (False, True, False)


def chained(*firings: str) -> Event:
    return event(extensions={ROOT: "e0", CHAIN: " ".join(firings)})


def test_a_chain_is_carried_on_and_stops_at_the_limit() -> None:
    first = fire(rule(), Scope(event()), registry(), 5, now=NOW)
    assert isinstance(first, Firing)
    assert first.invocation.cause is not None
    assert (first.invocation.cause.root, first.invocation.cause.chain) == ("1", {"r": 1})
    later = fire(rule(), Scope(chained("other=9", "r=7")), registry(), 5, now=NOW)
    assert isinstance(later, Firing)
    assert later.invocation.cause is not None
    assert (later.invocation.cause.root, later.invocation.cause.depth) == ("e0", 17)
    stopped = fire(rule(), Scope(chained("r=8")), registry(), 5, now=NOW)
    assert isinstance(stopped, Refusal)
    assert "descends from 8 firings of this very rule, beginning with event e0" in stopped.reason
    assert isinstance(fire(rule(), Scope(chained("r=8")), registry(), 5, now=NOW, chain_limit=9), Firing)


def test_a_chain_that_cannot_be_read_or_leads_through_too_many_rules_is_refused() -> None:
    for firings, reason in ((["r=x"], "'r=x' is no RULE=NUMBER"), ([f"rule-{n:090}=1" for n in range(50)], "51 rules")):
        outcome = fire(rule(), Scope(chained(*firings)), registry(), 5, now=NOW)
        assert isinstance(outcome, Refusal)
        assert reason in outcome.reason


def test_a_rule_does_not_fire_for_the_files_that_it_declares_as_its_outputs() -> None:
    makes = rule(upon={"type": [{"exists": True}]}, run={"outputs": ["/out/*.png", "/one.[x]"]})

    def fires(**keys: Any) -> bool:
        return fire(makes, Scope(event(**keys)), registry(), 5, now=NOW) is not None

    assert not fires(type="upon.file.ready", subject="/out/a/b.png")
    assert not fires(type="upon.file.ready", subject="/one.[x]")
    assert fires(type="upon.file.ready", subject="/out/a.tif")
    assert fires(type="upon.file.ready", subject="/one.x")
    assert fires(type="other", subject="/out/a.png")


def test_a_record_that_is_no_event_is_kept_whole() -> None:
    bad = Received("events", 2, 7, b"k", b"\xff", (("h", b"v"),))
    reaction = react(bad, RulesOverTime([rule()]), registry(), NOW)
    (one,) = reaction.letters
    assert (one.value, one.key, one.headers, one.origin, one.part) == (
        b"\xff",
        b"k",
        (("h", b"v"),),
        "events/2/7",
        "streams",
    )
    assert one.reason.startswith("EventError: not JSON")
    assert reaction.fired == ()


def test_of_a_batch_only_the_bad_one_is_kept() -> None:
    headers = (("Content-Type", BATCH.encode()), ("x", b"y"))
    mixed = record(event(id="1"), {"bad": 1}, event(id="2"), batch=True, headers=headers)
    reaction = react(mixed, RulesOverTime([rule()]), registry(), NOW)
    assert [one.event.id for one in reaction.fired] == ["1", "2"]
    (one,) = reaction.letters
    assert json.loads(one.value) == {"bad": 1}
    assert one.headers == (("x", b"y"), ("content-type", b"application/cloudevents+json"))


def test_a_batch_of_one_is_a_batch() -> None:
    reaction = react(record({"bad": 1}, batch=True), RulesOverTime([rule()]), registry(), NOW)
    assert json.loads(reaction.letters[0].value) == {"bad": 1}


def test_what_only_looks_like_a_batch_is_kept_whole() -> None:
    for bad in (b"[1,", b'  ["a]', b"[1] 2"):
        (one,) = react(Received("t", 0, 0, None, bad), RulesOverTime([rule()]), registry(), NOW).letters
        assert one.value == bad


@pytest.mark.parametrize(
    "bad",
    [
        b'{"data": 1e400}',
        b'{"data": "\\ud800"}',
        b'{"data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"\xff",
        b"tru",
        b'{"id": ' + b"9" * 5_000 + b"}",
        b"",
    ],
    ids=["1e400", "surrogate", "deep", "no UTF-8", "no JSON", "huge integer", "nothing"],
)
def test_one_element_that_is_no_json_leaves_its_neighbours_alone(bad: bytes) -> None:
    one, two = (json.dumps(event(id=name).to_dict()).encode() for name in "12")
    value = b" [" + one + b"," + bad + b", " + two + b"]\n"
    reaction = react(Received("t", 0, 0, None, value), RulesOverTime([rule()]), registry(), NOW)
    assert [(fired.event.id, fired.position) for fired in reaction.fired] == [("1", 0), ("2", 2)]
    (letter,) = reaction.letters
    assert letter.value == bad or not bad
    assert letter.reason.startswith("EventError: ")


def test_a_batch_of_rubbish_has_few_letters_and_its_events_fire() -> None:
    reaction = react(record(*[0] * 5_000, event(), batch=True), RulesOverTime([rule()]), registry(), NOW)
    assert len(reaction.fired) == 1
    assert len(reaction.letters) == MAX_BAD + 1
    assert "5,000 of 5,001 elements are no events" in reaction.letters[-1].reason


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0000-01-01T00:00:00+23:59"])
def test_an_event_of_any_year_fires_and_can_be_written(time: str) -> None:
    (fired,) = react(record(event(time=time)), RulesOverTime([rule()]), registry(), NOW).fired
    cause = fired.firing.invocation.cause
    assert cause is not None
    assert cause.event_time == 0
    assert decode(encode(fired.firing.invocation), Invocation) == fired.firing.invocation


@pytest.mark.parametrize("data", [10**400, {"a": [-(10**400)]}])
def test_a_number_that_an_expression_cannot_have_is_a_letter_of_that_rule_alone(data: Any) -> None:
    rules = [rule(name="reads", run={"args": ["${data}"]}), rule(name="plain", run={"args": []})]
    reaction = react(record(event(data=data)), RulesOverTime(rules), registry(), NOW)
    assert [fired.firing.invocation.cause.rule for fired in reaction.fired] == ["plain"]  # type: ignore[union-attr]
    assert [one.rule for one in reaction.letters] == ["reads"]


def test_data_nested_as_deeply_as_json_may_be_stops_no_rule_that_does_not_read_it() -> None:
    deep = json.dumps(event(data="DATA").to_dict()).encode().replace(b'"DATA"', b"[" * 850 + b"]" * 850)
    rules = [rule(name="reads", run={"args": ["${data}"]}), rule(name="plain")]
    reaction = react(Received("t", 0, 0, None, b"[" + deep + b"]"), RulesOverTime(rules), registry(), NOW)
    assert {fired.firing.invocation.cause.rule for fired in reaction.fired} >= {"plain"}  # type: ignore[union-attr]
    assert len(reaction.fired) + len(reaction.letters) == 2


def test_a_condition_without_end_is_a_letter_of_its_rule_alone() -> None:
    endless = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].all(a, " * 9 + "true" + ")" * 9
    rules = [rule(name="endless", where=endless), rule(name="good")]
    reaction = react(record(event()), RulesOverTime(rules), registry(), NOW)
    assert [fired.firing.invocation.cause.rule for fired in reaction.fired] == ["good"]  # type: ignore[union-attr]
    (letter,) = reaction.letters
    assert (letter.rule, letter.event_id) == ("endless", "1")
    assert "where" in letter.reason
    assert "of CPU time for this event" in letter.reason


@given(st.binary(max_size=40) | st.text('[]{},:"\\1e ', max_size=40).map(str.encode))
def test_whatever_stands_between_good_events_the_answer_is_no_exception(bad: bytes) -> None:
    one = json.dumps(event().to_dict()).encode()
    reaction = react(Received("t", 0, 0, None, b"[" + one + b"," + bad + b"," + one + b"]"), RulesOverTime([rule()]),
                     registry(), NOW)  # fmt: skip
    assert len(reaction.fired) + len(reaction.letters) >= 1


def test_a_record_nested_without_end_is_a_dead_letter() -> None:
    for bad in (b"[" * 100_000, b'{"a":' * 100_000):
        (one,) = react(Received("t", 0, 0, None, bad), RulesOverTime([rule()]), registry(), NOW).letters
        assert one.value == bad


def test_deep_data_is_matched() -> None:
    deep: Any = "leaf"
    for _ in range(500):
        deep = [deep]
    found = rule_from_spec({"name": "d", "upon": {"data": {"x": ["leaf"]}}, "run": {"function": "f"}})
    assert len(react(record(event(data={"x": deep})), RulesOverTime([found]), registry(), NOW).fired) == 1


def test_binary_form_with_a_list_for_data_is_one_event() -> None:
    headers = tuple((f"ce_{name}", text) for name, text in {"specversion": b"1.0", "id": b"1", "type": b"t"}.items())
    (one,) = react(Received("t", 0, 0, None, b"[1, 2]", headers), RulesOverTime([rule()]), registry(), NOW).letters
    assert one.value == b"[1, 2]"
    complete = (*headers, ("ce_source", b"/s"), ("content-type", b"application/json"))
    reaction = react(Received("t", 0, 0, None, b"[1, 2]", complete), RulesOverTime([rule()]), registry(), NOW)
    assert [one.position for one in reaction.fired] == [None]
    assert reaction.fired[0].event.data == [1, 2]


def test_a_refused_rule_keeps_the_event_and_lets_others_fire() -> None:
    bad = rule_from_spec({"name": "bad", "upon": {"type": ["t"]}, "run": {"function": "f", "args": ["${nope}"]}})
    reaction = react(record(event(id="1"), event(id="2"), batch=True), RulesOverTime([bad, rule()]), registry(), NOW)
    assert len(reaction.fired) == 2
    assert [from_dict(json.loads(one.value)).id for one in reaction.letters] == ["1", "2"]
    assert len({one.id for one in reaction.letters}) == 2


def test_a_redelivery_gives_the_same_ids() -> None:
    again: list[Reaction] = [
        react(record(event(), {"bad": 1}, batch=True), RulesOverTime([rule()]), registry(), now) for now in (1, 2)
    ]
    assert [one.id for one in again[0].letters] == [one.id for one in again[1].letters]
    assert [one.firing.invocation.id for one in again[0].fired] == [one.firing.invocation.id for one in again[1].fired]


def test_a_huge_record_is_taken_a_slice_at_a_time_and_no_work_twice_in_it() -> None:
    many = record(*[event(id=str(number)) for number in range(3 * SLICE)], event(id="1"), batch=True)
    slices = list(slices_of(many, RulesOverTime([rule()]), registry(), NOW))
    assert max(len(one.fired) for one in slices) == SLICE
    assert [one.event.id for slice in slices for one in slice.fired] == [str(number) for number in range(3 * SLICE)]


def test_a_letter_names_what_it_is_about() -> None:
    bad = rule_from_spec({"name": "bad", "upon": {"type": ["t"]}, "run": {"function": "f", "args": ["${nope}"]}})
    (one,) = react(record(event(id="7")), RulesOverTime([bad]), registry(), NOW).letters
    assert (one.rule, one.action, one.event_id, one.function) == ("bad", "run", "7", "f")


def test_an_event_tried_again_fires_the_rule_it_is_for_alone() -> None:
    other = rule_from_spec({"name": "other", "upon": {"type": ["t"]}, "run": {"function": "f"}}, revision=1)
    again = record(event(), headers=((ONLY_RULE, b"other"),))
    (one,) = react(again, RulesOverTime([rule(), other]), registry(), NOW).fired
    assert one.firing.invocation.cause is not None
    assert one.firing.invocation.cause.rule == "other"
    (missed,) = react(again, RulesOverTime([rule()]), registry(), NOW).letters
    assert missed.rule == "other"
    assert "no such rule, or its pattern does not match" in missed.reason


@given(
    st.binary(max_size=60) | st.none(),
    st.lists(
        st.tuples(st.sampled_from(["ce_specversion", "ce_id", "content-type", "x"]), st.binary(max_size=5)), max_size=4
    ),
)
def test_whatever_comes_there_is_an_answer(value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    reaction = react(Received("t", 0, 0, None, value, tuple(headers)), RulesOverTime([rule()]), registry(), NOW)
    assert reaction.fired == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(json_values, max_size=4))
def test_any_json_is_an_answer_as_well(values: list[Any]) -> None:
    value = json.dumps(values).encode()
    reaction = react(Received("t", 0, 0, None, value), RulesOverTime([rule()]), registry(), NOW)
    assert len(reaction.letters) in (len(values), 1)
