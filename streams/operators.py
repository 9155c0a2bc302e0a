"""One alternative of an event pattern: an exact value, or an operator of EventBridge, as a test of one leaf value.

    "x", 3, true, null                  equal; 3 and 3.0 are equal, 1 and true are not
    {exactly: "x"}                      that string
    {prefix: "a"} {suffix: "z"}         strings; "" fits every string; also {prefix: {equals-ignore-case: "a"}}
    {wildcard: "/data/*/s_*.h5"}        `*` is any text, also none; `\\*` and `\\\\` stand for themselves
    {equals-ignore-case: "x"}
    {numeric: [">", 0, "<=", 5]}        numbers, never strings that look like one
    {cidr: "10.0.0.0/24"}               IPv4 or IPv6 address as a string
    {exists: true} {exists: false}      there is a leaf at this place, or none (see `upon.streams.patterns`)
    {anything-but: V}                   V: a value, a list of values, or {prefix|suffix|wildcard|equals-ignore-case: …}

Guarantee: a test never raises, whatever the value. Source: Amazon EventBridge user guide, "Comparison operators".
Not here: fields and nesting (`upon.streams.patterns`), the index (`upon.streams.matcher`).
"""

from __future__ import annotations

import ipaddress
import math
import operator
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

from upon.errors import InputError
from upon.streams.wording import article, suggestion

Path = tuple[str | int, ...]
Test = Callable[[Any], bool]

OPERATORS = (
    "anything-but",
    "cidr",
    "equals-ignore-case",
    "exactly",
    "exists",
    "numeric",
    "prefix",
    "suffix",
    "wildcard",
)
SEVERAL_EVENTS = frozenset({"all", "any", "sequence", "absence", "count"})
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class PatternError(InputError):
    """Something in a pattern is wrong.

    Attributes:
        path: where, from the pattern's root; problem: what, and what is allowed.
    """

    def __init__(self, path: Path, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{'.'.join(map(str, path))}: {problem}")


@dataclass(frozen=True, slots=True)
class Hint:
    """What an index may know of an alternative: every value that passes equals `key`, or begins with it."""

    kind: Literal["exact", "prefix"]
    key: Hashable


@dataclass(frozen=True, slots=True)
class Alternative:
    """One entry of a field's list.

    Attributes:
        test: tells whether a leaf value passes.
        hint: for the index; None when there is nothing to say.
        absent: it also passes where there is no leaf at all (``exists: false``).
    """

    test: Test
    hint: Hint | None = None
    absent: bool = False


def value_key(value: Any) -> Hashable:
    """Return what makes two leaf values equal in a pattern: 1 is 1.0, but not true."""
    return (bool, value) if isinstance(value, bool) else value


def parse_alternative(value: Any, path: Path) -> Alternative:
    """Return the alternative that stands in a pattern.

    Args:
        value: a scalar, or a mapping with one operator.
        path: its place from the pattern's root, for errors.

    Raises:
        PatternError: it is neither, or the operator's value is wrong.
    """
    if not isinstance(value, dict):
        return _exact(_scalar(value, path))
    if len(value) != 1:
        names = ", ".join(map(str, value)) or "none"
        raise PatternError(path, f"an operator mapping has exactly one key, this one has {names}")
    ((name, operand),) = value.items()
    if name not in _PARSERS:
        if name in SEVERAL_EVENTS:
            raise PatternError((*path, name), "rules over several events are not supported yet")
        raise PatternError(
            (*path, name),
            f"unknown operator {name!r}{suggestion(str(name), OPERATORS)}; allowed: {', '.join(OPERATORS)}",
        )
    return _PARSERS[name](operand, (*path, name))


def _scalar(value: Any, path: Path) -> Any:
    if value is not None and not isinstance(value, str | bool | int | float):
        raise PatternError(path, f"must be a string, number, boolean, null or an operator, not {article(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise PatternError(path, f"{value} cannot be in an event: use a finite number")
    return value


def _text(value: Any, path: Path) -> str:
    if not isinstance(value, str):
        raise PatternError(path, f"must be a string, not {article(value)}")
    return value


def _exactly(operand: Any, path: Path) -> Alternative:
    return _exact(_text(operand, path))


def _exact(value: Any) -> Alternative:
    key = value_key(value)
    if isinstance(value, bool | int | float):
        return Alternative(lambda found: value_key(found) == key, Hint("exact", key))
    return Alternative(lambda found: bool(found == value), Hint("exact", key))


def _prefix(operand: Any, path: Path) -> Alternative:
    if isinstance(operand, dict):
        head = _folded(operand, path)
        return Alternative(lambda found: isinstance(found, str) and found.casefold().startswith(head))
    text = _text(operand, path)
    return Alternative(lambda found: isinstance(found, str) and found.startswith(text), Hint("prefix", text))


def _suffix(operand: Any, path: Path) -> Alternative:
    if isinstance(operand, dict):
        tail = _folded(operand, path)
        return Alternative(lambda found: isinstance(found, str) and found.casefold().endswith(tail))
    text = _text(operand, path)
    return Alternative(lambda found: isinstance(found, str) and found.endswith(text))


def _folded(operand: dict[Any, Any], path: Path) -> str:
    if list(operand) != ["equals-ignore-case"]:
        raise PatternError(path, "must be a string or {equals-ignore-case: string}")
    return _text(operand["equals-ignore-case"], (*path, "equals-ignore-case")).casefold()


def _ignore_case(operand: Any, path: Path) -> Alternative:
    if not isinstance(operand, str):
        raise PatternError(path, f"must be a string, not {article(operand)}")
    text = operand.casefold()
    return Alternative(lambda found: isinstance(found, str) and found.casefold() == text)


def _wildcard(operand: Any, path: Path) -> Alternative:
    pieces = _split_wildcard(_text(operand, path), path)
    if len(pieces) == 1:
        return _exact(pieces[0])
    head = pieces[0]
    return Alternative(
        lambda found: isinstance(found, str) and _wildcard_matches(pieces, found),
        Hint("prefix", head) if head else None,
    )


def _split_wildcard(text: str, path: Path) -> list[str]:
    """Return the literal pieces between the stars, escapes resolved."""
    pieces, piece, index = [], "", 0
    while index < len(text):
        char = text[index]
        if char == "\\":
            following = text[index + 1 : index + 2]
            if following not in ("*", "\\") or not following:
                raise PatternError(path, "after a backslash comes '*' or another backslash (\\* or \\\\)")
            piece += following
            index += 2
            continue
        if char == "*":
            if text[index + 1 : index + 2] == "*":
                raise PatternError(path, "'**' is not allowed: one '*' crosses '/' as well")
            pieces.append(piece)
            piece = ""
        else:
            piece += char
        index += 1
    return [*pieces, piece]


def _wildcard_matches(pieces: list[str], text: str) -> bool:
    """Match greedily from the left: linear in practice, where a regular expression can explode."""
    head, *middle, tail = pieces
    if len(text) < len(head) + len(tail) or not text.startswith(head) or not text.endswith(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for piece in middle:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def _numeric(operand: Any, path: Path) -> Alternative:
    allowed = "such as ['>', 0, '<=', 5]; comparisons: = > >= < <="
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise PatternError(path, f"must be one or two comparisons with their numbers, {allowed}")
    checks: list[tuple[Callable[[Any, Any], bool], float]] = []
    for index in range(0, len(operand), 2):
        name, bound = operand[index], operand[index + 1]
        if not isinstance(name, str) or name not in COMPARISONS:
            raise PatternError((*path, index), f"unknown comparison {name!r}: write {allowed}")
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise PatternError((*path, index + 1), f"must be a number, not {article(bound)}")
        checks.append((COMPARISONS[name], bound))
    if len(checks) == 2:
        _check_range(operand, path)

    def test(found: Any) -> bool:
        if isinstance(found, bool) or not isinstance(found, int | float):
            return False
        return all(compare(found, bound) for compare, bound in checks)

    return Alternative(test, Hint("exact", operand[1]) if operand[0] == "=" and len(operand) == 2 else None)


def _check_range(operand: list[Any], path: Path) -> None:
    lower = [(name, bound) for name, bound in zip(operand[::2], operand[1::2], strict=True) if name[0] == ">"]
    upper = [(name, bound) for name, bound in zip(operand[::2], operand[1::2], strict=True) if name[0] == "<"]
    if len(lower) != 1 or len(upper) != 1:
        raise PatternError(path, "two comparisons are a lower bound (> or >=) and an upper bound (< or <=)")
    (low_name, low), (high_name, high) = lower[0], upper[0]
    if low > high or (low == high and "=" not in (low_name[1:], high_name[1:])):
        raise PatternError(path, f"no number is {low_name} {low} and {high_name} {high}")
    if low == high and (low_name, high_name) != (">=", "<="):
        raise PatternError(path, f"no number is {low_name} {low} and {high_name} {high}")


def _exists(operand: Any, path: Path) -> Alternative:
    if not isinstance(operand, bool):
        raise PatternError(path, f"must be true or false, not {article(operand)}")
    if operand:
        return Alternative(lambda found: True)
    return Alternative(lambda found: False, absent=True)


def _cidr(operand: Any, path: Path) -> Alternative:
    try:
        network = ipaddress.ip_network(_text(operand, path), strict=False)
    except ValueError as error:
        raise PatternError(path, f"not an address range such as 10.0.0.0/24 or 2001:db8::/32: {error}") from error

    def test(found: Any) -> bool:
        if not isinstance(found, str):
            return False
        try:
            return ipaddress.ip_address(found) in network
        except ValueError:
            return False

    return Alternative(test)


def _anything_but(operand: Any, path: Path) -> Alternative:
    if isinstance(operand, dict):
        refused = _refused_operator(operand, path)
    else:
        values = operand if isinstance(operand, list) else [operand]
        if not values:
            raise PatternError(path, "an empty list refuses nothing: use {exists: true}")
        keys = {value_key(_scalar(value, (*path, index))) for index, value in enumerate(values)}
        return Alternative(lambda found: value_key(found) not in keys)
    return Alternative(lambda found: not any(one.test(found) for one in refused))


def _refused_operator(operand: dict[Any, Any], path: Path) -> list[Alternative]:
    allowed = ("prefix", "suffix", "wildcard", "equals-ignore-case")
    name = next(iter(operand), None)
    if len(operand) != 1 or name not in allowed:
        raise PatternError(path, f"must be a value, a list of values, or one of: {', '.join(allowed)}")
    values = operand[name] if isinstance(operand[name], list) else [operand[name]]
    if not values:
        raise PatternError((*path, name), "an empty list refuses nothing: use {exists: true}")
    if "" in values and name != "equals-ignore-case":
        raise PatternError((*path, name), "must not be empty: it would refuse every string")
    return [_PARSERS[name](value, (*path, name)) for value in values]


_PARSERS: dict[str, Callable[[Any, Path], Alternative]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "wildcard": _wildcard,
    "equals-ignore-case": _ignore_case,
    "exactly": _exactly,
    "numeric": _numeric,
    "exists": _exists,
    "cidr": _cidr,
    "anything-but": _anything_but,
}
