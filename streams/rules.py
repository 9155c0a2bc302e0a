"""Rules: from YAML, or from what the registry keeps of it, to frozen `Rule` objects.

    parse_rules(text, file)     all rules of a file, or the first error
    check_rules(text, file)     every error of a file, each with line, column, field, problem
    rule_specs(text, file)      (name, spec) of each rule: what `RuleRevision.spec` keeps
    rule_from_spec(spec)        the rule again, compiled

Guarantees: a `Rule` that exists is compiled whole: pattern, expressions, templates. Every error is a `RuleError`.
Not here: what happens when an event comes (`upon.streams.firing`). This module is pure and imports no Kafka client.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from upon import requirements
from upon.errors import RuleError
from upon.messages import Resources, Retry
from upon.registry import split_function
from upon.streams.conditions import Expression, ExpressionError, expression
from upon.streams.patterns import Pattern, check_pattern
from upon.streams.schema import KEYS, SEVERAL_EVENT_KEYS, RetrySpec, RuleSpec
from upon.streams.templates import Template, compile_template
from upon.streams.wording import article, suggestion
from upon.yaml_positions import Positions, YamlError, field_name, load

Path = tuple[Any, ...]
Problem = tuple[Path, str]
"""Where, from the root of the rule, and what is wrong there."""

FILE_KEYS = ("version", "rules")
VERSION = 1
ACTION = "run"
"""The name of a rule's one action."""
FOREVER = 2**63 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A rule, ready to be matched and fired.

    Attributes:
        name: unique among the rules.
        spec: what stood in the YAML, as plain data.
        revision: of the rule in the registry, from 1; 0 when it is not from there.
        epoch: raised when somebody asks that the rule fires again for what it has fired for.
        since, until: which events it is for, by when Kafka had them, ns since the epoch; `until` is not included.
        enabled: a disabled rule is kept and does nothing.
        pattern, where, once: which events it is for, under what condition, and what makes two firings the same.
        function, function_version: what it runs; None = the newest version.
        sites: candidates in order of preference, at least one.
        args, kwargs: templates of a list and of a mapping.
        outputs: files that its function writes, for which it does not fire.
        timeout: s for one attempt; 0 = none.
        resources, priority, limits, memoize: as in an invocation.
    """

    name: str
    spec: dict[str, Any]
    pattern: Pattern
    function: str
    function_version: int | None
    sites: tuple[str, ...]
    args: Template
    kwargs: Template
    where: Expression | None = None
    once: Expression | None = None
    outputs: tuple[re.Pattern[str], ...] = ()
    timeout: float = 0.0
    resources: Resources | None = None
    priority: int = 0
    limits: dict[str, int] = field(default_factory=dict)
    memoize: bool = False
    retry: Retry = field(default_factory=Retry)
    description: str = ""
    enabled: bool = True
    revision: int = 0
    epoch: int = 1
    since: int = 0
    until: int = FOREVER


def parse_rules(text: str, file: str = "<rules>") -> list[Rule]:
    """Return the rules of a YAML file, in order.

    Raises:
        RuleError: the first thing that is wrong.
    """
    rules, errors = _read(text, file)
    if errors:
        raise errors[0]
    return rules


def check_rules(text: str, file: str = "<rules>") -> list[RuleError]:
    """Return everything that is wrong in a YAML file of rules, by line."""
    return _read(text, file)[1]


def rule_specs(text: str, file: str = "<rules>") -> list[tuple[str, dict[str, Any]]]:
    """Return name and spec of each rule of a YAML file, in order, after checking all.

    Raises:
        RuleError: the first thing that is wrong.
    """
    return [(rule.name, rule.spec) for rule in parse_rules(text, file)]


def rule_from_spec(spec: dict[str, Any], *, revision: int = 0, file: str = "<rules>") -> Rule:
    """Return the rule that plain data describes.

    Args:
        spec: as in `RuleRevision.spec`.
        revision: the record's number.
        file: for the error's message.

    Raises:
        RuleError: the first thing that is wrong; without line and column.
    """
    rule, problems = _compile(spec, revision)
    if rule is None:
        path, problem = problems[0]
        raise RuleError(problem, file=file, field=field_name(path))
    return rule


def _read(text: str, file: str) -> tuple[list[Rule], list[RuleError]]:
    try:
        data, positions = load(text, file)
    except YamlError as error:
        return [], [RuleError(error.problem, file=error.file, line=error.line, column=error.column)]
    rules: list[Rule] = []
    problems = _file_problems(data)
    first: dict[str, int] = {}
    specs = data.get("rules") if isinstance(data, dict) else None
    for index, spec in enumerate(specs if isinstance(specs, list) else ()):
        rule, wrong = _compile(spec, 0)
        problems += [(("rules", index, *path), problem) for path, problem in wrong]
        name = spec.get("name") if isinstance(spec, dict) else None
        if isinstance(name, str) and first.setdefault(name, index) != index:
            problems.append((("rules", index, "name"), f"{name!r} is the name of rules[{first[name]}] already"))
        if rule is not None:
            rules.append(rule)
    errors = [_located(path, problem, file, positions) for path, problem in problems]
    return rules, sorted(errors, key=lambda error: (error.line, error.column))


def _file_problems(data: Any) -> list[Problem]:
    if data is None:
        return [((), "no rules: a file begins with `rules:` and a list of rules")]
    if not isinstance(data, dict):
        return [((), f"must be a mapping with the key rules, not {article(data)}")]
    problems: list[Problem] = [((key,), _unknown_key(key, FILE_KEYS)) for key in data if key not in FILE_KEYS]
    if data.get("version", VERSION) != VERSION or isinstance(data.get("version"), bool):
        problems.append((("version",), f"must be {VERSION}, the only version there is"))
    if "rules" not in data:
        problems.append(((), "rules: is required: a list of rules"))
    elif not isinstance(data["rules"], list):
        problems.append((("rules",), f"must be a list of rules, not {article(data['rules'])}"))
    return problems


def _compile(spec: Any, revision: int) -> tuple[Rule | None, list[Problem]]:
    """Return the rule, or None and everything that is wrong."""
    if not isinstance(spec, dict):
        return None, [((), f"a rule is a mapping with the keys name, upon and run, not {article(spec)}")]
    if True in spec and "upon" not in spec:
        return None, [((True,), "write upon: in place of on:, which YAML reads as the value true")]
    spec = _with_on(spec)
    shape, problems = _shape(spec)
    pattern, wrong = check_pattern(spec["upon"]) if isinstance(spec.get("upon"), dict) else (Pattern(()), [])
    problems += [(("upon", *one.path), one.problem) for one in wrong]
    where = _expression(spec, "where", problems)
    once = _expression(spec, "once", problems)
    run = spec.get("run") if isinstance(spec.get("run"), dict) else {}
    templates = {}
    for name, kind in (("args", list), ("kwargs", dict)):
        given = run.get(name, kind()) if isinstance(run, dict) else kind()
        templates[name], bad = compile_template(given if isinstance(given, kind) else kind())
        problems += [(("run", name, *one.path), one.problem) for one in bad]
    if shape is None or problems:
        return None, problems
    function, function_version = split_function(shape.run.function)
    return Rule(
        name=shape.name,
        spec=spec,
        pattern=pattern,
        function=function,
        function_version=function_version,
        sites=tuple(shape.run.site),
        args=templates["args"],
        kwargs=templates["kwargs"],
        where=where,
        once=once,
        outputs=tuple(re.compile(".*".join(map(re.escape, one.split("*"))), re.DOTALL) for one in shape.run.outputs),
        timeout=shape.run.timeout or 0.0,
        resources=requirements.resources(**shape.run.resources.model_dump()),
        priority=shape.run.priority,
        limits=shape.run.limits,
        memoize=shape.run.memoize,
        retry=_retry(shape.run.retry),
        description=shape.description,
        enabled=shape.enabled,
        revision=revision,
    ), []


def _with_on(spec: dict[str, Any]) -> dict[str, Any]:
    """Give `retry: {on: …}` its key back: YAML 1.1 reads the bare word `on` as true."""
    run = spec.get("run")
    retry = run.get("retry") if isinstance(run, dict) else None
    if not isinstance(run, dict) or not isinstance(retry, dict) or True not in retry or "on" in retry:
        return spec
    named = {"on" if key is True else key: value for key, value in retry.items()}
    return {**spec, "run": {**run, "retry": named}}


def _expression(spec: dict[str, Any], name: str, problems: list[Problem]) -> Expression | None:
    source = spec.get(name)
    if not isinstance(source, str):
        return None  # absent, or its type is a problem already
    try:
        return expression(source.strip())
    except ExpressionError as error:
        problems.append(((name,), str(error)))
        return None


def _retry(spec: RetrySpec) -> Retry:
    on = tuple(spec.on)
    if spec.backoff is None:
        return Retry(attempts=spec.attempts, on=on)
    wait = spec.backoff
    return Retry(
        attempts=spec.attempts, on=on, initial=wait.initial, factor=wait.factor, max=wait.max, jitter=wait.jitter
    )


def _shape(spec: dict[str, Any]) -> tuple[RuleSpec | None, list[Problem]]:
    try:
        return RuleSpec.model_validate(spec), []
    except ValidationError as error:
        return None, [_worded(one) for one in error.errors(include_url=False)]


def _worded(error: Any) -> Problem:
    """Return what pydantic found in our words."""
    path = tuple(step for step in error["loc"] if step != "[key]")
    given, limits = error["input"], error.get("ctx", {})
    match error["type"]:
        case "missing":
            return path, "is required"
        case "extra_forbidden":
            if len(path) == 1 and path[0] in SEVERAL_EVENT_KEYS:
                return path, f"rules over several events ({path[0]}) are not supported yet"
            return path, _unknown_key(path[-1], KEYS[path[:-1]])
        case "value_error":
            return path, str(limits["error"])
        case "string_type":
            return path, f"must be a string, not {article(given)}"
        case "list_type":
            return path, f"must be a list, not {article(given)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return path, f"must be a mapping, not {article(given)}"
        case "bool_type":
            return path, f"must be true or false, not {article(given)}"
        case "int_type" | "int_from_float":
            return path, f"must be a whole number, not {article(given)}"
        case "float_type":
            return path, f"must be a number, not {article(given)}"
        case "greater_than_equal":
            return path, f"must be at least {limits['ge']:g}, not {given}"
        case "less_than_equal":
            return path, f"must be at most {limits['le']:g}, not {given}"
        case _:
            return path, str(error["msg"])


def _unknown_key(key: Any, allowed: tuple[str, ...]) -> str:
    return f"unknown key {key!r}{suggestion(str(key), allowed)}; allowed: {', '.join(allowed)}"


def _located(path: Path, problem: str, file: str, positions: Positions) -> RuleError:
    at = path
    if at not in positions and "on" in at:
        at = tuple(True if step == "on" else step for step in at)  # as YAML read it, see `_with_on`
    unknown = problem.startswith(("unknown", "no event has an attribute", "rules over", "write upon:"))
    line, column = positions.key(at) if unknown else positions.nearest(at)
    return RuleError(
        problem,
        file=file,
        line=line,
        column=column,
        field=field_name(tuple("on" if step is True else step for step in path)),
    )
