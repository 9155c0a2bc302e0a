"""Templates: the args and kwargs of a rule, with `${CEL}` in their strings.

    "${data.size}"              exactly one expression: its value, with its type
    "${subject}.png"            text around it: a string; what is no string is written as JSON
    "$${HOME}"                  a literal ``${HOME}``
    [1, {"a": "${data}"}]       lists and mappings are walked; keys are not templates

Compiled when the rule is read, rendered when it fires. Guarantees: what has no `${` comes out as it stood; what comes
from expressions is counted while it is rendered, so that a short template over a large event takes no more memory
than arguments may have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from upon.errors import InputError, PayloadTooLarge
from upon.messages import MAX_PAYLOAD
from upon.streams.conditions import EvaluationError, Expression, ExpressionError, Scope, expression
from upon.streams.costs import size

Path = tuple[str | int, ...]


class TemplateError(InputError):
    """A template that cannot be compiled.

    Attributes:
        path: where, from the template's root; problem: what is wrong.
    """

    def __init__(self, path: Path, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{'.'.join(map(str, path))}: {problem}")


@dataclass(frozen=True, slots=True)
class _Text:
    """Literal text and expressions, in turn."""

    parts: tuple[str | Expression, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template: plain data in which some values are expressions."""

    root: Any

    def render(self, scope: Scope) -> Any:
        """Return the value for an event.

        Raises:
            EvaluationError: an expression failed.
            PayloadTooLarge: the values of the expressions are larger than arguments may be.
        """
        return _render(self.root, _Rendering(scope))

    def expressions(self) -> Iterator[Expression]:
        """Yield the expressions in it."""
        waiting = [self.root]
        while waiting:
            match waiting.pop():
                case Expression() as one:
                    yield one
                case _Text(parts):
                    waiting.extend(parts)
                case list() as several:
                    waiting.extend(several)
                case dict() as mapping:
                    waiting.extend(mapping.values())


class _Rendering:
    """One rendering: what expressions see, and how many bytes their values may still take."""

    __slots__ = ("_room", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope, self._room = scope, MAX_PAYLOAD

    def take(self, value: Any) -> None:
        if isinstance(value, str | bytes):
            self._room -= len(value)
        elif isinstance(value, list | dict):
            self._room -= size(value, self._room)
        if self._room < 0:
            raise PayloadTooLarge(
                f"the values of its expressions take more than the {MAX_PAYLOAD:,} bytes that arguments may have: "
                "pass paths, not data"
            )


def compile_template(value: Any) -> tuple[Template, list[TemplateError]]:
    """Return the template that plain data describes, and everything that is wrong in it."""
    problems: list[TemplateError] = []
    return Template(_compile(value, (), problems)), problems


def _compile(value: Any, path: Path, problems: list[TemplateError]) -> Any:
    match value:
        case str():
            try:
                return _compile_text(value)
            except ExpressionError as error:
                problems.append(TemplateError(path, str(error)))
                return value
        case list():
            return [_compile(one, (*path, index), problems) for index, one in enumerate(value)]
        case dict():
            for key in value:
                if not isinstance(key, str):
                    problems.append(TemplateError((*path, key), f"a key must be a string, not {key!r}: quote it"))
                elif "${" in key:
                    problems.append(TemplateError((*path, key), "a key cannot be a template, only a value"))
            return {key: _compile(one, (*path, key), problems) for key, one in value.items()}
        case _:
            return value


def _compile_text(text: str) -> str | Expression | _Text:
    parts: list[str | Expression] = []
    literal, at = "", 0
    while (found := text.find("${", at)) >= 0:
        if text[found - 1 : found] == "$" and found > at:
            literal += text[at : found - 1] + "${"
            at = found + 2
            continue
        literal += text[at:found]
        end = _end_of_expression(text, found + 2)
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(_compile_expression(text[found + 2 : end], text))
        at = end + 1
    literal += text[at:]
    if not parts:
        return literal
    if literal:
        parts.append(literal)
    only = parts[0]
    return only if len(parts) == 1 and isinstance(only, Expression) else _Text(tuple(parts))


def _compile_expression(source: str, text: str) -> Expression:
    try:
        return expression(source.strip())
    except ExpressionError as error:
        raise ExpressionError(f"in ${{{source}}}: {error}") from None


def _end_of_expression(text: str, start: int) -> int:
    """Return where the `}` of a `${` stands: braces nest, and those in CEL strings do not count."""
    depth, quote, index = 0, "", start
    while index < len(text):
        char = text[index]
        if quote:
            if char == "\\":
                index += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return index
            depth -= 1
        index += 1
    raise ExpressionError(f"{text[start - 2 :]!r} has no closing brace (a literal ${{ is written $${{)")


def _render(node: Any, now: _Rendering) -> Any:
    match node:
        case Expression():
            value = node.value(now.scope)
            now.take(value)
            return value
        case _Text():
            return "".join([part if isinstance(part, str) else _as_text(part, now) for part in node.parts])
        case list():
            return [_render(one, now) for one in node]
        case dict():
            return {key: _render(one, now) for key, one in node.items()}
        case _:
            return node


def _as_text(expression: Expression, now: _Rendering) -> str:
    value = expression.value(now.scope)
    now.take(value)
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        raise EvaluationError(expression.source, "bytes cannot stand in text; use string() or ${…} alone")
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise EvaluationError(expression.source, f"cannot be written as text: {error}") from error
