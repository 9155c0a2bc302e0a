"""What expressions may cost: a bound that holds, and leaves the usual ones where they are quick."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upon.events import Event
from upon.streams.conditions import EvaluationError, Expression, ExpressionError, Scope
from upon.streams.costs import MAX_NESTING, MAX_TOKENS, TooBig, measure, weight

TWENTY = "[" + ",".join(map(str, range(20))) + "]"


def endless(depth: int = 8) -> str:
    text = "true"
    for name in "abcdefgh"[:depth]:
        text = f"{TWENTY}.all({name}, {text})"
    return text


@pytest.mark.parametrize(
    ("source", "least"),
    [
        ("data.size > 20 && data.metadata.proposal.startsWith('GUP')", 10_000),
        ("subject + '@' + data.version", 10_000),
        ("subject.split('/')[3]", 10_000),
        ("data", 100_000),
        ("subject.replace('.h5', '.png')", 100),
        ("data.history.all(one, one.ok)", 100),
        ("subject.matches('^/data/.*[.]h5$')", 1_000),
    ],
)
def test_usual_expressions_are_cheap_for_usual_events(source: str, least: int) -> None:
    assert measure(source).most >= least


@pytest.mark.parametrize(
    "source",
    [
        endless(),
        "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(a, " * 7 + "a" + ")" * 7,
        "['x']" + ".map(x, x + x + x + x)" * 30,
        "lists.range(1000000000)",
        "subject.matches('(a{1000}){9}')",
        "subject.matches(data.pattern)",
    ],
)
def test_what_may_take_for_ever_is_never_cheap(source: str) -> None:
    assert measure(source).most == -1


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("(" * 400 + "1" + ")" * 400, f"at most {MAX_NESTING} brackets"),
        ("[" * 60 + "]" * 60, f"at most {MAX_NESTING} brackets"),
        ("has(" * 300 + "data.a" + ")" * 300, f"at most {MAX_NESTING} brackets"),
        ("!" * 4000 + "true", f"at most {MAX_TOKENS} names, values and operators"),
        ("1+" * 2000 + "1", f"at most {MAX_TOKENS} names, values and operators"),
        ("data" + ".a" * 2000, f"at most {MAX_TOKENS} names, values and operators"),
        ("'" + "x" * 5000 + "'", "at most 4096 characters"),
    ],
)
def test_what_is_too_big_is_not_compiled(source: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why):
        Expression(source)


@given(st.text(max_size=200) | st.text("()[]{}'\"\\rb.,+ x1all!?:", max_size=300))
def test_any_text_is_measured(source: str) -> None:
    with suppress(TooBig):
        assert measure(source).most >= -1


def test_brackets_in_text_do_not_count() -> None:
    assert measure("'" + "(" * 1000 + "'").most > 0
    assert measure('"\\"' + "[" * 1000 + '"').most > 0


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from(["x1.ok", "x1 in data.list", "data.text.contains('zz')", "[x1, x1].size() > 0", "x1 == data.list"]),
    st.integers(1, 60),
)
def test_what_is_called_cheap_is_quick(depth: int, body: str, count: int) -> None:
    source = body
    for level in range(1, depth + 1):
        source = f"data.list.map(x{level}, {source})"
    scope = Scope(Event(type="t", source="s", data={"list": [{"ok": True}] * count, "text": "z" * count}))
    expression = Expression(source)
    if not scope.weighs_more_than(expression._cheap_up_to):
        scope.context  # noqa: B018
        before = time.thread_time()
        expression.value_here(scope)
        assert time.thread_time() - before < 0.2, "CPU time of this thread alone; ten times what is cheap"


def test_the_weight_is_counted_no_further_than_asked() -> None:
    data = [["x" * 16] * 100] * 100
    assert weight(data, 10**9) == 1 + 100 + 100 * 100 * 2
    assert 500 < weight(data, 500) < 1000
    scope = Scope(Event(type="t", source="s", data=data))
    assert [scope.weighs_more_than(most) for most in (-1, 500, 30_000, 500, 15_000)] == [True, True, False, True, True]
    assert not Scope(Event(type="t", source="s", data=data), size=1_000).weighs_more_than(500)


def test_an_endless_condition_ends_and_says_why() -> None:
    with pytest.raises(EvaluationError, match=r"took more than 0\.1 s of CPU time for this event"):
        Expression(endless()).holds(Scope(Event(type="t", source="s")))
