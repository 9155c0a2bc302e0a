"""CEL expressions keep types, and what goes wrong is an error of ours with a reason."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from upon.events import Event
from upon.streams.conditions import EvaluationError, Expression, ExpressionError, Scope
from upon.streams.costs import MAX_LENGTH

SCOPE = Scope(
    Event(
        type="sample.ready",
        source="/lab/7",
        subject="S-17",
        id="e1",
        time="2026-11-21T10:00:00Z",
        extensions={"beamline": "7bm", "run": 3},
        data={
            "mass": 3,
            "ratio": 2.0,
            "big": 2**63 - 1,
            "ok": True,
            "none": None,
            "name": "a/b.h5",
            "tags": ["x", 1, 2.5, None, {"k": [1]}],
            "metadata": {"proposal": "GUP-1", "key-with-dash": 1},
        },
    )
)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("data.mass", 3),
        ("data.ratio", 2.0),
        ("data.big", 2**63 - 1),
        ("data.ok", True),
        ("data.none", None),
        ("data.tags", ["x", 1, 2.5, None, {"k": [1]}]),
        ("data.metadata", {"proposal": "GUP-1", "key-with-dash": 1}),
        ("data.metadata['key-with-dash']", 1),
        ("data.mass + 1", 4),
        ("double(data.mass) * 1.5", 4.5),
        ("data.mass > 2.5", True),
        ("subject + '@' + string(data.mass)", "S-17@3"),
        ("beamline", "7bm"),
        ("run", 3),
        ("event.run", 3),
        ("has(event.nope)", False),
        ("has(data.nope)", False),
        ("dataschema == null", True),
        ("datacontenttype", None),
        ("specversion", "1.0"),
        ("data.name.split('/')", ["a", "b.h5"]),
        ("data.name.replace('.h5', '.png')", "a/b.png"),
        ("math.greatest(1, 3)", 3),
        ("[3, 1].sort()", [1, 3]),
        ("data.tags.exists(one, one == 1)", True),
        ("[1, 2].map(eachOne, eachOne * 2)", [2, 4]),
        ("timestamp(time)", "2026-11-21T10:00:00Z"),
        ("duration('90s')", 90.0),
        ("timestamp(time).getHours()", 10),
        ("b'ab'", b"ab"),
        ("type == 'sample.ready' && data.metadata.proposal.startsWith('GUP')", True),
        ("{'a': data.mass}", {"a": 3}),
        ("optional.of(3)", 3),
    ],
)
def test_values_keep_their_types(source: str, value: Any) -> None:
    found = Expression(source).value(SCOPE)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 +", "ends too early at character 4"),
        ("a b", "'b' at character 3"),
        ("", "empty"),
        ("  ", "empty"),
        ("foo(1)", "no function 'foo'"),
        ("subject.startWith('a')", "did you mean 'startsWith'"),
        ("Data.mass > 1", "did you mean 'data'"),
        ("event_type == 'x'", "no event has a field 'event_type'"),
        ("x" * (MAX_LENGTH + 1), "at most"),
    ],
)
def test_what_does_not_compile_says_why(source: str, words: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        Expression(source)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("data.nope", "no field 'nope'"),
        ("nope", "the event has no nope"),
        ("string(null)", "string() does not take these arguments"),
        ("data.mass + 1.5", "types do not fit"),
        ("data.none.x", "types do not fit"),
        ("data.tags[99]", "out of bounds"),
        ("1 / 0", "division by zero"),
        ("data.big + 1", "overflow"),
        ("int('x')", "string parse error"),
        ("'a'.matches('(')", "regex"),
        ("{1: 2}", "keys must be strings"),
    ],
)
def test_what_cannot_be_evaluated_says_why(source: str, words: str) -> None:
    with pytest.raises(EvaluationError) as raised:
        Expression(source).value(SCOPE)
    assert words in raised.value.reason
    assert raised.value.source == source
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_a_condition_gives_true_or_false() -> None:
    assert Expression("data.mass == 3").holds(SCOPE) is True
    assert Expression("data.mass == 4").holds(SCOPE) is False
    with pytest.raises(EvaluationError, match="true or false, this one gave the number 3"):
        Expression("data.mass").holds(SCOPE)


def test_a_key_is_text_and_equal_for_equal_values() -> None:
    assert Expression("subject").key(SCOPE) == "S-17"
    assert Expression("data.mass").key(SCOPE) == "3"
    assert Expression("{'b': 1, 'a': 2}").key(SCOPE) == Expression("{'a': 2, 'b': 1}").key(SCOPE)
    with pytest.raises(EvaluationError, match="null"):
        Expression("data.none").key(SCOPE)


def test_bytes_of_an_event_are_bytes() -> None:
    scope = Scope(Event(type="t", source="s", data=b"\xff\x00"))
    assert Expression("data").value(scope) == b"\xff\x00"
    assert Expression("size(data)").value(scope) == 2


def test_an_event_without_data_has_null_data() -> None:
    assert Expression("data == null && subject == null").holds(Scope(Event(type="t", source="s"))) is True
