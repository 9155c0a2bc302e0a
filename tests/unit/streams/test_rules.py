"""Rules from YAML: complete, and every error at its line, column and field."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from upon.errors import RuleError
from upon.events import Event
from upon.messages import Resources, Retry
from upon.streams.conditions import Scope
from upon.streams.rules import check_rules, parse_rules, rule_from_spec, rule_specs
from upon.streams.schema import rule_schema

FULL = """\
version: 1
rules:
  - name: reconstruct-tomogram
    description: each scan, once
    upon:
      type: [upon.file.ready]
      subject: [{wildcard: "/data/tomo/*/scan_*.h5"}]
      data: {size: [{numeric: [">", 1000000]}]}
    where: data.metadata.proposal.startsWith("GUP")
    once: subject + "@" + data.version
    run:
      function: tomo.reconstruct@2
      site: [alcf, local]
      args: ["${subject}"]
      kwargs: {iterations: 100, meta: "${data.metadata}"}
      timeout: 30m
      retry: {attempts: 5, backoff: {initial: 1s, factor: 2, max: 5m, jitter: true}, on: [WorkerLost, OSError]}
"""

SHORT = """\
rules:
  - name: thumbs
    upon: {type: [upon.file.ready]}
    run: {function: thumbs.make}
"""


def test_every_key_arrives() -> None:
    (rule,) = parse_rules(FULL)
    assert (rule.name, rule.description, rule.enabled) == ("reconstruct-tomogram", "each scan, once", True)
    assert (rule.function, rule.function_version, rule.sites) == ("tomo.reconstruct", 2, ("alcf", "local"))
    assert rule.timeout == 1800.0
    assert rule.retry == Retry(attempts=5, on=("WorkerLost", "OSError"), initial=1.0, factor=2.0, max=300.0)
    data = {"size": 2_000_000, "version": "v1", "metadata": {"proposal": "GUP-1"}}
    scope = Scope(Event(type="upon.file.ready", source="/s", subject="/data/tomo/a/scan_1.h5", data=data))
    assert rule.pattern.matches(scope.fields)
    assert rule.where is not None
    assert rule.where.holds(scope)
    assert rule.once is not None
    assert rule.once.key(scope) == "/data/tomo/a/scan_1.h5@v1"
    assert rule.args.render(scope) == ["/data/tomo/a/scan_1.h5"]
    assert rule.kwargs.render(scope) == {"iterations": 100, "meta": {"proposal": "GUP-1"}}


def test_defaults() -> None:
    (rule,) = parse_rules(SHORT)
    assert (rule.function_version, rule.sites, rule.timeout, rule.retry) == (None, ("local",), 0.0, Retry())
    assert (rule.where, rule.once, rule.revision, rule.enabled) == (None, None, 0, True)
    scope = Scope(Event(type="t", source="s"))
    assert (rule.args.render(scope), rule.kwargs.render(scope)) == ([], {})


def test_what_a_rule_asks_for() -> None:
    asked = "f, resources: {cores: 4, memory: 8GiB, accelerators: 1}, priority: -3, limits: {beam: 2}}"
    (rule,) = parse_rules(SHORT.replace("thumbs.make}", asked))
    assert rule.resources == Resources(cores=4, memory=8 << 30, accelerators=1)
    assert (rule.priority, rule.limits) == (-3, {"beam": 2})
    assert parse_rules(SHORT)[0].resources is None


@pytest.mark.parametrize(
    ("asked", "field", "why"),
    [
        ("resources: {cores: 0}", "run.resources.cores", "1"),
        ("resources: {memory: lots}", "run.resources.memory", "such as 512MB"),
        ("resources: {gpus: 1}", "run.resources.gpus", "allowed"),
        ("priority: 1001", "run.priority", "1000"),
        ("limits: {beam: 0}", "run.limits", "whole number from 1"),
    ],
)
def test_what_a_rule_cannot_ask_for_is_named(asked: str, field: str, why: str) -> None:
    with pytest.raises(RuleError, match=why) as raised:
        parse_rules(SHORT.replace("thumbs.make}", f"f, {asked}}}"))
    assert raised.value.field.endswith(field)


def test_backoff_without_initial_waits_a_second() -> None:
    (rule,) = parse_rules(SHORT.replace("thumbs.make}", "f, retry: {backoff: {max: 10}, on: [OSError]}}"))
    assert rule.retry == Retry(attempts=3, on=("OSError",), initial=1.0, factor=2.0, max=10.0)


def test_a_spec_survives_json_and_gives_the_same_rule() -> None:
    ((name, spec),) = rule_specs(FULL)
    again = rule_from_spec(json.loads(json.dumps(spec)), revision=4)
    (rule,) = parse_rules(FULL)
    assert (name, again.revision) == ("reconstruct-tomogram", 4)
    assert again.spec == rule.spec == spec
    assert again.retry == rule.retry
    assert spec["run"]["retry"]["on"] == ["WorkerLost", "OSError"]


def test_a_spec_that_does_not_compile_names_the_field() -> None:
    with pytest.raises(RuleError) as raised:
        rule_from_spec({"name": "x", "upon": {"type": ["a"]}, "run": {}}, file="registry")
    assert (raised.value.field, raised.value.file, raised.value.line) == ("run.function", "registry", 0)


@pytest.mark.parametrize("spec", [None, 3, "x", [], {}, {"name": 1}, {"name": "x", "upon": [], "run": []}])
def test_rubbish_for_a_spec_is_a_rule_error(spec: Any) -> None:
    with pytest.raises(RuleError):
        rule_from_spec(spec)


BAD = """\
version: 2
rulez: 1
rules:
  - name: "a b"
    upon: {type: upon.file.ready, Sorce: [x], data: {n: [{numeric: [">>", 1]}, {prefx: a}]}}
    where: data.size >
    once: foo(3)
    run:
      functon: x
      args: ["${data.", {x: "${a b}"}]
      timeout: 3 parsecs
      retry: {attempts: 0, on: WorkerLost, backof: {}}
    within: 5m
  - 5
  - {name: q, upon: {}, run: {function: f@x, site: [], kwargs: {1: 2}}}
  - {name: q, upon: {type: [a]}, run: {function: f, site: Bad_site, retry: {on: ["a b"], attempts: true}}}
  - {name: r, upon: {type: [a]}, enabled: 1, run: {function: 3, args: 4, timeout: 0, retry: {backoff: {factor: 0.5}}}}
"""

EXPECTED = [
    (1, 10, "version", "must be 1"),
    (2, 1, "rulez", "did you mean 'rules'?); allowed: version, rules"),
    (4, 11, "rules[0].name", "cannot name a rule"),
    (5, 18, "rules[0].upon.type", "write [upon.file.ready]"),
    (5, 35, "rules[0].upon.Sorce", "did you mean 'source'"),
    (5, 69, "rules[0].upon.data.n[0].numeric[0]", "unknown comparison '>>'"),
    (5, 81, "rules[0].upon.data.n[1].prefx", "did you mean 'prefix'"),
    (6, 12, "rules[0].where", "ends too early"),
    (7, 11, "rules[0].once", "no function 'foo'"),
    (9, 7, "rules[0].run.function", "is required"),
    (9, 7, "rules[0].run.functon", "did you mean 'function'"),
    (10, 14, "rules[0].run.args[0]", "no closing brace"),
    (10, 29, "rules[0].run.args[1].x", "not a CEL expression"),
    (11, 16, "rules[0].run.timeout", "is not a duration"),
    (12, 25, "rules[0].run.retry.attempts", "at least 1"),
    (12, 32, "rules[0].run.retry.on", "write [WorkerLost]"),
    (12, 44, "rules[0].run.retry.backof", "did you mean 'backoff'"),
    (13, 5, "rules[0].within", "not supported yet"),
    (14, 5, "rules[1]", "a rule is a mapping"),
    (15, 21, "rules[2].upon", "empty pattern"),
    (15, 41, "rules[2].run.function", "positive integer"),
    (15, 52, "rules[2].run.site", "at least one site"),
    (15, 68, "rules[2].run.kwargs[1]", "a key must be a string"),
    (16, 12, "rules[3].name", "the name of rules[2] already"),
    (16, 59, "rules[3].run.site", "lower-case"),
    (16, 81, "rules[3].run.retry.on", "'a b' cannot name an exception class"),
    (16, 100, "rules[3].run.retry.attempts", "must be a whole number, not the boolean true"),
    (17, 43, "rules[4].enabled", "must be true or false, not the number 1"),
    (17, 62, "rules[4].run.function", "must be a string, not the number 3"),
    (17, 71, "rules[4].run.args", "must be a list, not the number 4"),
    (17, 83, "rules[4].run.timeout", "longer than 0"),
    (17, 112, "rules[4].run.retry.backoff.factor", "at least 1"),
]


def test_every_error_of_a_file_with_its_place() -> None:
    errors = check_rules(BAD, "bad.yaml")
    found = [(error.line, error.column, error.field) for error in errors]
    assert found == [expected[:3] for expected in EXPECTED]
    for error, (*_, words) in zip(errors, EXPECTED, strict=True):
        assert words in error.problem
        assert str(error).startswith(f"bad.yaml:{error.line}:{error.column}: {error.field}: ")


def test_the_first_error_is_raised_by_parsing() -> None:
    with pytest.raises(RuleError, match=r"bad.yaml:1:10: version"):
        parse_rules(BAD, "bad.yaml")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 0, "no rules"),
        ("# nothing\n", 0, "no rules"),
        ("[]", 1, "must be a mapping"),
        ("rules: 3", 1, "must be a list of rules"),
        ("version: 1", 1, "rules: is required"),
        ("rules: []\nversion: true", 2, "must be 1"),
        ("rules:\n  - name: [", 2, "not YAML"),
        ("rules:\n- {name: a, name: b}", 2, "stands twice"),
        ("rules: !!python/object:os.system {}", 1, "tag"),
        ("rules: [\x00]", 1, "not allowed"),
    ],
)
def test_what_is_no_file_of_rules(text: str, line: int, words: str) -> None:
    errors = check_rules(text, "x.yaml")
    assert len(errors) == 1
    assert words in str(errors[0])
    assert errors[0].line in (line, line + 1)


def test_an_empty_list_of_rules_is_fine() -> None:
    assert parse_rules("rules: []") == []


@pytest.mark.parametrize("key", ["all", "any", "sequence", "absence", "count", "within", "by", "debounce", "collect"])
def test_keys_for_several_events_are_announced(key: str) -> None:
    (error,) = check_rules(SHORT + f"    {key}: 1\n")
    assert "not supported yet" in error.problem


def test_the_schema_names_every_key() -> None:
    schema = rule_schema()
    assert set(schema["properties"]) == {"name", "description", "enabled", "upon", "where", "once", "run"}
    assert schema["additionalProperties"] is False


def test_rules_are_read_without_a_kafka_client() -> None:
    code = "import sys, upon.streams.rules; print([m for m in ('faust', 'aiokafka', 'kafka') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_on_in_place_of_upon_is_said_plainly() -> None:
    text = "rules:\n  - name: r\n    on: {type: [t]}\n    run: {function: f}\n"
    (error,) = check_rules(text, "r.yaml")
    assert str(error) == "r.yaml:3:5: rules[0].on: write upon: in place of on:, which YAML reads as the value true"
