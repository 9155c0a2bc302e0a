"""Every example in docs/rules.md is a file of rules that works, on the event that the page shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from upon.events import from_dict
from upon.streams.conditions import FUNCTIONS, Expression, Scope
from upon.streams.operators import OPERATORS
from upon.streams.rules import Rule, check_rules, parse_rules
from upon.streams.schema import RULE_KEYS, SEVERAL_EVENT_KEYS

PAGE = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()
YAML = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
RULES = {rule.name: rule for text in YAML for rule in parse_rules(text, "docs/rules.md")}
(EVENT,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def scope(**changes: Any) -> Scope:
    return Scope(from_dict({**json.loads(EVENT), **changes}))


@pytest.mark.parametrize("text", YAML)
def test_every_example_is_right(text: str) -> None:
    assert check_rules(text) == []


def holds(rule: Rule, of: Scope) -> bool:
    return rule.pattern.matches(of.fields) and (rule.where is None or rule.where.holds(of))


def test_the_first_rule_is_for_the_event_shown() -> None:
    rule = RULES["reconstruct-tomogram"]
    assert holds(rule, scope())
    assert not holds(rule, scope(subject="/data/other/a/scan_1.h5"))
    assert rule.once is not None
    assert rule.once.key(scope()) == "/data/tomo/a/scan_1.h5@v1"


def test_the_pattern_example_means_what_it_says() -> None:
    rule = RULES["hot-or-unattended"]
    data = {"metadata": {"owner": "ann"}, "tags": ["raw"], "temperature": 400, "operator": "ben"}
    assert holds(rule, scope(data=data))
    assert not holds(rule, scope(data={**data, "temperature": 300}))
    assert not holds(rule, scope(data={**data, "metadata": {"owner": "demo"}}))
    del data["operator"]
    assert holds(rule, scope(data={**data, "temperature": 300}))


def test_the_condition_example_means_what_it_says() -> None:
    rule = RULES["heavy-and-stable"]
    good = {"mass": 3, "history": [{"ok": True}]}
    assert holds(rule, scope(type="sample.ready", data=good))
    assert not holds(rule, scope(type="sample.ready", data={"history": []}))


def test_the_templates_give_what_their_comments_say() -> None:
    rule = RULES["templates"]
    assert rule.args.render(scope()) == [
        52428800,
        ["raw", "tomo"],
        "/data/tomo/a/scan_1.h5.png",
        '52428800 bytes, ["raw","tomo"]',
        "${HOME}",
    ]
    kwargs = rule.kwargs.render(scope())
    assert kwargs["nested"] == [{"name": "a"}]
    assert kwargs["whole"]["proposal"] == "GUP-77"
    assert kwargs["when"] == "2026-11-21T10:00:00Z"


def test_the_page_names_every_key_operator_and_what_is_not_there_yet() -> None:
    for name in (*RULE_KEYS, *OPERATORS, *SEVERAL_EVENT_KEYS, "attempts", "backoff", "jitter"):
        assert name in PAGE, name


def test_the_functions_named_exist() -> None:
    named = re.search(r"- Functions: (.*?)A function that", PAGE, re.DOTALL)
    assert named is not None
    for name in re.findall(r"`([\w.]+)`", named[1]):
        assert name.rpartition(".")[2] in FUNCTIONS, name


@pytest.mark.parametrize("source", re.findall(r"`((?:double|string|has)\([^`]*)`", PAGE))
def test_the_small_expressions_compile(source: str) -> None:
    Expression(source)
