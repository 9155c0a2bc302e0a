"""`${…}` in args and kwargs: types survive, text is filled in, escapes stay."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.errors import PayloadTooLarge
from upon.events import Event
from upon.streams.conditions import EvaluationError, Scope
from upon.streams.templates import compile_template

SCOPE = Scope(
    Event(
        type="t",
        source="/lab",
        subject="S",
        data={"n": 3, "f": 1.0, "ok": True, "none": None, "list": [1, "a"], "map": {"k": 1}, "text": "}"},
    )
)


def render(value: Any) -> Any:
    template, problems = compile_template(value)
    assert problems == []
    return template.render(SCOPE)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("${data.n}", 3),
        ("${ data.n }", 3),
        ("${data.f}", 1.0),
        ("${data.ok}", True),
        ("${data.none}", None),
        ("${data.list}", [1, "a"]),
        ("${data.map}", {"k": 1}),
        ("${subject}.png", "S.png"),
        ("a ${subject} b ${data.n} c", "a S b 3 c"),
        ("${subject}${subject}", "SS"),
        (" ${data.n}", " 3"),
        ("${data.f}/${data.ok}/${data.none}/${data.list}/${data.map}", '1.0/true/null/[1,"a"]/{"k":1}'),
        ("$${HOME}", "${HOME}"),
        ("$${a} ${data.n}", "${a} 3"),
        ("$$", "$$"),
        ("$x {y} }", "$x {y} }"),
        ("${'}' + data.text}", "}}"),
        ('${"\\"}" + subject}', '"}S'),
        ("${ {'a': {'b': 1}}.a.b }", 1),
        ("${ {'a': 1} }", {"a": 1}),
        (["${data.n}", ["${subject}"], {"k": "${data.list}"}], [3, ["S"], {"k": [1, "a"]}]),
        ({"a": 1, "b": None, "c": 1.5, "d": True}, {"a": 1, "b": None, "c": 1.5, "d": True}),
        ("", ""),
    ],
)
def test_renders(template: Any, value: Any) -> None:
    found = render(template)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("template", "path", "words"),
    [
        ("${data.n", (), "no closing brace"),
        ("a ${'}", (), "no closing brace"),
        ("${}", (), "empty expression"),
        ("${a b}", (), "in ${a b}: not a CEL expression"),
        ([1, {"x": "${foo()}"}], (1, "x"), "no function 'foo'"),
        ({"${a}": 1}, ("${a}",), "a key cannot be a template"),
        ({1: 1}, (1,), "a key must be a string"),
    ],
)
def test_errors_name_the_place(template: Any, path: tuple[Any, ...], words: str) -> None:
    _, problems = compile_template(template)
    assert [problem.path for problem in problems] == [path]
    assert words in problems[0].problem


def test_all_errors_are_found() -> None:
    _, problems = compile_template({"a": "${", "b": ["${x y}"]})
    assert [problem.path for problem in problems] == [("a",), ("b", 0)]


def test_bytes_stand_alone_only() -> None:
    scope = Scope(Event(type="t", source="s", data=b"x"))
    alone, _ = compile_template("${data}")
    mixed, _ = compile_template("a${data}")
    assert alone.render(scope) == b"x"
    with pytest.raises(EvaluationError, match="bytes"):
        mixed.render(scope)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def escaped(value: Any) -> Any:
    match value:
        case str():
            return value.replace("${", "$${")
        case list():
            return [escaped(one) for one in value]
        case dict():
            return {key.replace("${", ""): escaped(one) for key, one in value.items()}
        case _:
            return value


def expected(value: Any) -> Any:
    match value:
        case list():
            return [expected(one) for one in value]
        case dict():
            return {key.replace("${", ""): expected(one) for key, one in value.items()}
        case _:
            return value


@given(plain)
def test_escaped_plain_data_comes_out_as_it_was(value: Any) -> None:
    assert render(escaped(value)) == expected(value)


@given(st.text(alphabet="a$ {}", max_size=12))
def test_any_text_survives_escaping(text: str) -> None:
    assert render(text.replace("${", "$${")) == text


def test_a_short_template_over_a_large_event_is_refused_before_it_fills_the_memory() -> None:
    large = Scope(Event(type="t", source="s", data={"text": "x" * 5_000_000}))
    for value in (["${data}" * 100], ["${data}"] * 100, [{"a": "${data.text}"}] * 100):
        template, problems = compile_template(value)
        assert not problems
        tracemalloc.start()
        with pytest.raises(PayloadTooLarge, match="take more than the 16,711,680 bytes that arguments may have"):
            template.render(large)
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
        tracemalloc.stop()
