"""How big an expression may be, and what one evaluation of it may cost, from its text alone.

    measure("data.list.all(x, x.ok)") ─▶ Cost(...)      raises TooBig: not to be given to a parser or evaluator at all
    cost.most                         ─▶ the weight of data up to which an evaluation surely stays within `CHEAP`

The bound is coarse and on the safe side: an expression is at most (elements)^(nesting of comprehensions) times its
operations, and an operation goes over all the data once. What is above it may still be quick; it is only not known to
be, and goes to a process that can be killed (`upon.streams.evaluator`).

Without recursion, in time linear in the text. Not here: whether the text is CEL (`upon.streams.conditions`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from upon.errors import InputError

MAX_LENGTH = 4096
"""Characters of one expression."""
MAX_TOKENS = 1000
"""Names, literals, operators and brackets of one expression: parser and evaluator recurse over chains of them."""
MAX_NESTING = 40
"""Brackets within brackets."""
CHEAP = 20e6
"""ns: what an evaluation may cost at most to be made in the stream worker itself."""

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<text>[rRbB]{0,2}(?:'{3}.*?'{3}|"{3}.*?"{3}|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
      | (?P<name>[A-Za-z_]\w*)
      | (?P<number>\.?\d[\w.]*)
      | (?P<sign>&&|\|\||[=!<>]=|.)""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_COMPREHENSIONS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_CORE_CALLS = frozenset({"has", "size", "startsWith", "endsWith", "contains", "type", "dyn"}) | frozenset(
    {"string", "int", "uint", "double", "bytes", "timestamp", "duration"}
)
_PRODUCTS = frozenset({"replace", "distinct", "sets", "join", "flatten", "strings"})
_UNBOUNDED = frozenset({"range", "bitShiftLeft"})
_STEP, _PASS, _PYTHON, _REGEX = 100.0, 10.0, 400.0, 4_000.0  # ns: an operation; going over one unit of weight


class TooBig(InputError):
    """An expression that no parser or evaluator shall see."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an evaluation may cost.

    Attributes:
        most: the weight of the data (`weight`) up to which it is cheap; -1 = never.
    """

    most: int


def measure(source: str) -> Cost:
    """Return what evaluating `source` may cost.

    Raises:
        TooBig: it is too long, has too many parts, or nests too deeply.
    """
    if len(source) > MAX_LENGTH:
        raise TooBig(f"an expression has at most {MAX_LENGTH} characters, this one has {len(source)}")
    tokens = [(str(found.lastgroup), found[0]) for found in _TOKEN.finditer(source) if found.lastgroup != "space"]
    if len(tokens) > MAX_TOKENS:
        raise TooBig(f"an expression has at most {MAX_TOKENS} names, values and operators, this one has {len(tokens)}")
    return Cost(_most(tokens))


def _most(tokens: list[tuple[str, str]]) -> int:
    brackets: list[bool] = []  # those that are open; whether the arguments of a comprehension are in them
    depth = nested = comprehensions = passes = python = regex = products = 0
    grows = unbounded = False
    before = ""
    for index, (kind, text) in enumerate(tokens):
        called = index + 1 < len(tokens) and tokens[index + 1][1] == "("
        if text in ("(", "[", "{") and kind == "sign":
            opens = text == "(" and before in _COMPREHENSIONS
            brackets.append(opens)
            depth += opens
            if len(brackets) > MAX_NESTING:
                raise TooBig(f"an expression has at most {MAX_NESTING} brackets within each other")
            nested = max(nested, depth)
        elif text in (")", "]", "}") and kind == "sign" and brackets:
            depth -= brackets.pop()
        elif kind == "name" and called and text in _COMPREHENSIONS:
            comprehensions += 1
        elif kind == "name" and called and text == "matches":
            regex += 1
            pattern = tokens[index + 2][1] if index + 2 < len(tokens) and tokens[index + 2][0] == "text" else "{"
            unbounded |= "{" in pattern  # a counted repetition makes a big automaton; so may data
        elif kind == "name" and called and text not in _CORE_CALLS:
            python += 1
            grows = True
            products += text in _PRODUCTS or (before == "." and index > 1 and tokens[index - 2][1] in _PRODUCTS)
            unbounded |= text in _UNBOUNDED
        elif (kind == "name" and before != ".") or (kind == "name" and called):
            passes += 1
        grows |= text == "+"
        before = text
    if unbounded:
        return -1
    degree = comprehensions if grows else nested
    literal = 1 + max(sum(text == "," for _, text in tokens), sum(text == "+" for _, text in tokens))
    per_step = _STEP * len(tokens)
    per_unit = _PASS * passes + _PYTHON * python + _REGEX * regex

    def cost(weight: float) -> float:
        elements = max(weight, literal if degree or grows else 1)
        return (per_step + per_unit * elements * (elements if products else 1)) * elements**degree

    return _largest(cost)


def _largest(cost: Any) -> int:
    """Return the largest weight for which a cost that grows with it is cheap, to within a tenth; -1 if none is."""
    with_overflow = _guarded(cost)
    if with_overflow(0.0) > CHEAP:
        return -1
    low, high = 0.0, 1e12
    while high - low > max(1.0, low / 10):
        middle = math.sqrt(max(low, 1.0) * high)
        if middle <= low:
            break
        low, high = (middle, high) if with_overflow(middle) <= CHEAP else (low, middle)
    return int(low)


def _guarded(cost: Any) -> Any:
    def guarded(weight: float) -> float:
        try:
            return float(cost(weight))
        except OverflowError:
            return math.inf

    return guarded


def weight(value: Any, most: int) -> int:
    """Return how much there is in plain data: 1 for each value, and for each 16 characters; stops beyond `most`."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        one = waiting.pop()
        total += 1
        if isinstance(one, str | bytes):
            total += len(one) >> 4
        elif isinstance(one, dict):
            waiting.extend(one.values())
            total += len(one)
        elif isinstance(one, list):
            waiting.extend(one)
    return total


def size(value: Any, most: int) -> int:
    """Return about how many bytes plain data takes when it is written; stops beyond `most`."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        one = waiting.pop()
        total += 1
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
            total += sum(map(len, one))
        elif isinstance(one, list):
            waiting.extend(one)
    return total
