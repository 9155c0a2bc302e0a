from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from upon.cli import output
from upon.cli.options import json_object, value
from upon.errors import InputError


@pytest.mark.parametrize(
    ("text", "found"),
    [("3", 3), ("[1]", [1]), ("null", None), ('"a"', "a"), ("a", "a"), ("{a", "{a"), ("", ""), ("-1.5", -1.5)],
)
def test_an_argument_is_json_or_else_text(text: str, found: object) -> None:
    assert value(text) == found


def test_an_object_is_an_object() -> None:
    assert json_object('{"a": 1}', "--kwargs") == {"a": 1}
    for wrong in ("3", "{a}", "[]"):
        with pytest.raises(InputError, match="--kwargs"):
            json_object(wrong, "--kwargs")


@pytest.mark.parametrize(
    ("duration", "said"),
    [(None, ""), (0.04, "0.0 ms"), (12.34, "12.3 ms"), (1_500, "1.5 s"), (90_000, "1 min 30 s")],
)
def test_durations(duration: float | None, said: str) -> None:
    assert output.milliseconds(duration) == said


def test_times_are_local_and_short_today() -> None:
    now = datetime.now(UTC)
    assert output.when(now.isoformat()) == now.astimezone().strftime("%H:%M:%S")
    before = now - timedelta(days=3)
    assert output.when(before.isoformat()) == before.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert output.when(None) == ""


def test_short_is_one_line_with_a_bound() -> None:
    assert output.short({"a": [1, "ü"]}) == '{"a": [1, "ü"]}'
    assert output.short("a\nb") == "a b"
    assert len(output.short("x" * 500)) == 100
    assert output.short(object()).startswith('"<object')


def test_json_is_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json([{"a": b"x"}])
    output.print_line({"b": 1})
    lines = capsys.readouterr().out
    assert json.loads(lines[: lines.index("]") + 1]) == [{"a": "eA=="}]
    assert lines.endswith('\n{"b":1}\n')


def test_markup_in_values_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("name", "what"), [("[bold]a[/]", None)], "none")
    output.print_table(("name",), [], "none at all")
    said = capsys.readouterr().out
    assert "[bold]a[/]" in said
    assert "none at all" in said
