"""YAML with positions: places, and what is refused with its place."""

from __future__ import annotations

import tracemalloc

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from upon import yaml_positions
from upon.yaml_positions import MAX_SIZE, YamlError, field_name, load

TEXT = """\
version: 1
rules:
  - name: first
    upon: {type: [a, "b"]}
  - name: second
"""


def test_each_value_and_key_has_its_place() -> None:
    data, positions = load(TEXT, "rules.yaml")
    assert data == yaml.safe_load(TEXT)
    assert positions[()] == (1, 1)
    assert positions[("version",)] == (1, 10)
    assert positions[("rules", 0, "name")] == (3, 11)
    assert positions.key(("rules", 0, "name")) == (3, 5)
    assert positions[("rules", 0, "upon", "type", 1)] == (4, 22)
    assert positions[("rules", 1)] == (5, 5)


def test_a_missing_field_is_placed_at_its_closest_parent() -> None:
    _, positions = load(TEXT, "rules.yaml")
    assert positions.nearest(("rules", 1, "run", "site")) == (5, 5)
    assert positions.key(("rules", 1, "run")) == (5, 5)


def test_field_names_read_as_in_messages() -> None:
    assert field_name(("rules", 0, "upon", "type", 1)) == "rules[0].upon.type[1]"
    assert field_name(()) == ""


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "3:1", "key 'a' stands twice, first in line 1"),
        ("a: [1\nb: 2\n", "2:2", "not YAML"),
        ("a: !!python/object:os.system {}\n", "1:4", "is not allowed"),
        ("a: !!binary aGk=\n", "1:4", "!!binary is not allowed"),
        ("a: 1\n--- \nb: 2\n", "2:1", "not YAML"),
        ("? [1, 2]\n: 3\n", "1:3", "a key must be a plain value"),
        ("a: &x [*x]\n", "1:4", "an alias that contains itself"),
        ("a: *nowhere\n", "1:4", "not YAML: found undefined alias"),
        ("ok: 1\nbad: \x07\n", "2:6", "is not allowed"),
        ("a: 1\n\tb: 2\n", "2:1", "not YAML"),
    ],
)
def test_refuses_with_the_place(text: str, place: str, problem: str) -> None:
    with pytest.raises(YamlError) as caught:
        load(text, "x.yaml")
    assert str(caught.value).startswith(f"x.yaml:{place}: ")
    assert problem in str(caught.value)
    assert f"{caught.value.line}:{caught.value.column}" == place


def test_documents_made_to_explode_are_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    with pytest.raises(YamlError, match="aliases count"):
        load(bomb, "x.yaml")
    with pytest.raises(YamlError, match="nested"):
        load("[" * 5000 + "]" * 5000, "x.yaml")


def test_merge_keys_work_and_may_be_overridden_and_met_again() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m\n  <<: *b\n  y: 3\nagain: *m\n"
    data, positions = load(text, "x.yaml")
    assert data["more"] == data["again"] == {"x": 1, "y": 3}
    assert positions[("more", "x")] == (1, 14)


def test_dates_and_the_equals_sign_stay_text_and_an_empty_document_is_none() -> None:
    assert load("a: 2026-11-21\nb: [=, 5]\n", "x.yaml")[0] == {"a": "2026-11-21", "b": ["=", 5]}
    data, positions = load("# nothing\n", "x.yaml")
    assert data is None
    assert positions.nearest(("rules",)) == (0, 0)


def test_what_no_record_can_hold_has_a_place() -> None:
    assert load(f"[{2**64 - 1}, {-(2**63)}]", "x.yaml")[0] == [2**64 - 1, -(2**63)]
    for number in (2**64, -(2**63) - 1):
        with pytest.raises(YamlError, match=r"x\.yaml:2:6: a whole number of more than 64 bits"):
            load(f"a: 1\nb: [ {number}]\n", "x.yaml")
    with pytest.raises(YamlError, match=r"x\.yaml:1:4: the character .* is half of a pair"):
        load('a: "\\ud800"\n', "x.yaml")
    with pytest.raises(YamlError, match=r"x\.yaml:1:1: a whole number"):
        load(f"{2**64}: 1\n", "x.yaml")


def test_a_document_is_bounded_before_it_takes_memory_or_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = "[" + "[]," * 1_000_000 + "]"
    for text, why in (
        ("#" * (MAX_SIZE + 1), r"x\.yaml: has 4,194,305 characters, the limit is 4,194,304"),
        ("[" * 2_000_000, r"x\.yaml:1:102: nested more than 100 deep"),
        ("{a: " * 500_000, "nested more than 100 deep"),
        ("a: " + "1:" * 1_000_000 + "1", r"x\.yaml:1:4: a number of more than 400 characters"),
        ("a: " + "1" * 1_000_000, r"x\.yaml:1:4: a number of more than 400 characters"),
    ):
        with pytest.raises(YamlError, match=why):
            load(text, "x.yaml")
    tracemalloc.start()
    monkeypatch.setattr(yaml_positions, "MAX_NODES", 50)
    with pytest.raises(YamlError, match=r"x\.yaml:1:\d+: more than 50 values"):
        load(values, "x.yaml")
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_merges_of_merges_do_not_multiply() -> None:
    lines = ["a0: &a0 {k: 1, l: 2}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], m{n}: 3}}" for n in range(1, 40)]
    assert len(load("\n".join(lines), "x.yaml")[0]["a39"]) == 41
    own_first = "base: &b {a: 1, b: 2}\nother: &o {a: 3, c: 4}\nx: {<<: [*b, *o], b: 5}\n"
    assert load(own_first, "x.yaml")[0]["x"] == {"a": 1, "b": 5, "c": 4}


def test_any_key_can_be_named() -> None:
    _, positions = load("1.5: [{~: 1}]", "x.yaml")
    assert [field_name(path) for path in positions] == ["", "1.5", "1.5[0]", "1.5[0].None"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_reads_what_was_dumped_and_every_path_has_a_place(data: object) -> None:
    again, positions = load(yaml.safe_dump(data), "x.yaml")
    assert again == data

    def paths(value: object, path: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(p for k, v in entries for p in paths(v, (*path, k)))]

    assert set(paths(data, ())) == set(positions)
