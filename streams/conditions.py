"""CEL expressions of rules: compiled when the rule is read, evaluated when an event matches.

An expression sees the attributes and extensions of the event by name (`type`, `source`, `id`, `subject`, `time` …),
its `data`, and all of these in the map `event`. A core attribute that the event does not have is null; any other
name that it does not have is an error, which `has(event.name)` avoids.

Evaluations are bounded from outside: a text that is too big is never compiled, an evaluation that is not known to be
cheap for this event (`upon.streams.costs`) is made by a process that is killed when its budget is spent.

Guarantees: values keep their types (int stays int, bytes stay bytes); what comes out is plain data: a timestamp
comes out as RFC 3339 text, a duration as seconds. Only `ExpressionError` and `EvaluationError` come out of here,
whatever the library underneath does. Not here: where in a file an expression stands (`upon.streams.rules`).

Functions: the CEL core and the `cel.stdlib` extensions (split, join, replace, lowerAscii, math.greatest, sort …).
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from types import ModuleType
from typing import Any, Final

import msgspec

# `cel` imports its command line, and that a terminal toolkit: 0.1 s of each part's start, for nothing.
_had_cli = "cel.cli" in sys.modules
sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))
import cel  # noqa: E402
from cel.stdlib import STDLIB_FUNCTIONS, add_stdlib_to_context  # noqa: E402

if not _had_cli:
    del sys.modules["cel.cli"]

from upon.errors import InputError  # noqa: E402
from upon.events import Event  # noqa: E402
from upon.streams.costs import TooBig, measure, weight  # noqa: E402
from upon.streams.evaluator import Evaluator, Exceeded  # noqa: E402
from upon.streams.wording import article, suggestion  # noqa: E402

EVALUATOR = Evaluator()
"""Where this process has evaluations made that may not end."""

ATTRIBUTES: Final = ("id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema", "data")
_STRINGS = {"size", "contains", "startsWith", "endsWith", "matches"}
_CONVERSIONS = {"string", "int", "uint", "double", "bytes", "timestamp", "duration", "type", "dyn"}
_MOMENTS = {"FullYear", "Month", "DayOfMonth", "Date", "DayOfWeek", "DayOfYear", "Hours", "Minutes", "Seconds"}
_MACROS = {"has", "all", "exists", "exists_one", "map", "filter"}
_CORE = _STRINGS | _CONVERSIONS | {f"get{name}" for name in (*_MOMENTS, "Milliseconds")} | _MACROS | {"of", "none"}
_EXTENSIONS = frozenset(name.rpartition(".")[2] for name in STDLIB_FUNCTIONS)
FUNCTIONS = _CORE | _EXTENSIONS
_NAMESPACES = frozenset(name.partition(".")[0] for name in STDLIB_FUNCTIONS if "." in name) | {"optional"}
_TYPES = frozenset({"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"})
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*(\w+)\s*,")
_EXTENSION = re.compile(r"[a-z0-9]{1,64}")
_SYNTAX = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


class ExpressionError(InputError):
    """Not a CEL expression, or one that uses a function or a name that cannot exist."""


class EvaluationError(InputError):
    """An expression could not be evaluated for an event, or gave what cannot be used."""

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{source!r}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return EvaluationError, (self.source, self.reason)


class Scope:
    """What an event's expressions see. The CEL side is built when the first expression asks for it.

    Args:
        event: the event.
        size: bytes of the record that it came in, an upper bound of what is in it; None = not known.
    """

    def __init__(self, event: Event, size: int | None = None) -> None:
        self.event = event
        self._size = size
        self._weighed = (0, -1)  # the weight of the fields, and up to where it was counted

    def weighs_more_than(self, most: int) -> bool:
        """Tell whether the event has more in it than `most` (see `upon.streams.costs.weight`)."""
        if self._size is not None and self._size // 2 <= most:  # in JSON a value takes two bytes at least
            return False
        found, counted = self._weighed
        if found > counted and most > counted:
            found = weight(self.fields, most)
            self._weighed = found, most
        return found > most

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Scope:
        """Return the scope of an event of which only the fields are there."""
        scope = cls.__new__(cls)
        scope.__dict__["fields"] = fields
        return scope

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Attributes, extensions and data that the event has, in one mapping: what patterns match."""
        event = self.event
        out: dict[str, Any] = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type}
        for name in ("subject", "time", "datacontenttype", "dataschema", "data"):
            if (value := getattr(event, name)) is not None:
                out[name] = value
        out.update(event.extensions)
        return out

    @cached_property
    def context(self) -> cel.Context:
        """What expressions of core functions are evaluated in."""
        names: dict[str, Any] = dict.fromkeys(ATTRIBUTES)
        names.update(self.fields)
        names["event"] = self.fields
        return cel.Context(names)

    @cached_property
    def extended_context(self) -> cel.Context:
        """The same with the extension functions, which take longer to add than most expressions to evaluate."""
        context = self.context
        add_stdlib_to_context(context)
        return context


class Expression:
    """A compiled CEL expression.

    Args:
        source: its text.

    Raises:
        ExpressionError: it does not compile, is too long, or uses an unknown function or name.
    """

    __slots__ = ("_cheap_up_to", "_extended", "_program", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        if not source.strip():
            raise ExpressionError("an empty expression")
        try:
            self._cheap_up_to = measure(source).most
        except TooBig as error:
            raise ExpressionError(str(error)) from None
        try:
            self._program = cel.compile(source)
        except _PASSED_ON:
            raise
        except BaseException as error:  # a panic in the library is no Exception
            raise ExpressionError(_syntax_problem(error)) from None
        _check_functions(self._program)
        self._extended = any(name.rpartition(".")[2] in _EXTENSIONS for name in self._program.functions())
        _check_names(self._program, source)

    @property
    def extensions(self) -> frozenset[str]:
        """The names it reads, by themselves, that an event has only as extensions."""
        bound = set(_BOUND.findall(self.source))
        known = bound | _NAMESPACES | _TYPES | {*ATTRIBUTES, "event"}
        return frozenset(name for name in self._program.variables() if name not in known)

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def value(self, scope: Scope) -> Any:
        """Return the value for an event, as plain data.

        Raises:
            EvaluationError: a field is missing, types do not fit, the value is not plain data, or the budget of time
                or memory is spent.
        """
        if not scope.weighs_more_than(self._cheap_up_to):
            return self.value_here(scope)
        try:
            good, found = EVALUATOR.evaluate(self.source, scope.fields)
        except Exceeded as error:
            raise EvaluationError(self.source, str(error)) from None
        except ValueError as error:  # data nested beyond what goes over a pipe
            raise EvaluationError(self.source, f"cannot be evaluated for this event: {error}") from None
        if not good:
            raise EvaluationError(self.source, str(found))
        return found

    def value_here(self, scope: Scope) -> Any:
        """Return the value as `value` does, evaluated in this process, whatever it costs."""
        try:
            found = self._program.execute(scope.extended_context if self._extended else scope.context)
        except _PASSED_ON:
            raise
        except BaseException as error:
            raise EvaluationError(self.source, _reason(error, self._program)) from None
        return found if type(found) in _SCALARS else _plain(found, self.source)

    def holds(self, scope: Scope) -> bool:
        """Return the truth of a condition.

        Raises:
            EvaluationError: as for `value`, or the value is neither true nor false.
        """
        found = self.value(scope)
        if not isinstance(found, bool):
            raise EvaluationError(self.source, f"a condition gives true or false, this one gave {article(found)}")
        return found

    def key(self, scope: Scope) -> str:
        """Return the value as text that is equal exactly when the value is: strings as they are, else JSON.

        Raises:
            EvaluationError: as for `value`, or the value is null.
        """
        found = self.value(scope)
        if found is None:
            raise EvaluationError(self.source, "a key cannot be null")
        if isinstance(found, str):
            return found
        try:
            return msgspec.json.encode(found, order="sorted").decode()
        except (TypeError, ValueError) as error:
            raise EvaluationError(self.source, f"cannot be a key: {error}") from error


@lru_cache(maxsize=4096)
def expression(source: str) -> Expression:
    """Return the compiled expression; of equal texts, which many rules share, the same. Raises as `Expression`."""
    return Expression(source)


def prepare(source: str, fields: dict[str, Any]) -> Callable[[], Any]:
    """Return what evaluates `source` for an event's fields, with everything done that goes before: for the evaluator.

    Raises:
        ExpressionError: it does not compile.
    """
    found, scope = Expression(source), Scope.of_fields(fields)
    scope.extended_context  # noqa: B018  built now
    return lambda: found.value_here(scope)


_PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)
_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})


def _syntax_problem(error: BaseException) -> str:
    found = _SYNTAX.search(str(error))
    if not found:
        return "not a CEL expression"
    line, column, problem = found.groups()
    problem = problem.removeprefix("Syntax error: ").partition(" expecting ")[0]
    if "<EOF>" in problem:
        problem = "it ends too early"
    place = f"character {column}" if line == "1" else f"line {line}, character {column} of it"
    return f"not a CEL expression: {problem} at {place}"


def _check_functions(program: cel.Program) -> None:
    for name in program.functions():
        if name[0].isalpha() and name.rpartition(".")[2] not in FUNCTIONS:
            raise ExpressionError(f"there is no function {name!r}{suggestion(name, FUNCTIONS)}")


def _check_names(program: cel.Program, source: str) -> None:
    bound = set(_BOUND.findall(source))
    for name in program.variables():
        if name in bound or name in _NAMESPACES or name in _TYPES or _EXTENSION.fullmatch(name):
            continue
        raise ExpressionError(
            f"no event has a field {name!r}{suggestion(name, ATTRIBUTES)}; there are {', '.join(ATTRIBUTES)}, "
            "extensions (lower-case letters and digits) and event"
        )


def _reason(error: BaseException, program: cel.Program) -> str:
    text = str(error).partition("\n")[0]
    match error:
        case KeyError():
            return f"there is no field {text}"
        case TypeError() if text.startswith("No such overload"):
            return (
                "the types do not fit (CEL converts none by itself: use int(), double(), string(); "
                "a field of null or of a string is an error too)"
            )
        case RuntimeError() if text.startswith("Undefined variable or function: "):
            name = text.removeprefix("Undefined variable or function: ").partition(".")[0].strip("'")
            taken = name in program.functions()
            return f"{name}() does not take these arguments" if taken else f"the event has no {name}"
        case _:
            return text.partition(". Check ")[0] or type(error).__name__


def _plain(value: Any, source: str) -> Any:
    match value:
        case list():
            return [_plain(one, source) for one in value]
        case Mapping():
            if any(not isinstance(key, str) for key in value):
                raise EvaluationError(source, "a map's keys must be strings")
            return {key: _plain(one, source) for key, one in value.items()}
        case datetime.datetime():
            return value.isoformat().replace("+00:00", "Z")
        case datetime.timedelta():
            return value.total_seconds()
        case cel.OptionalValue():
            return _plain(value.or_value(None), source)
        case None | str() | int() | float() | bytes():
            return value
        case _:
            raise EvaluationError(source, f"gave a {type(value).__name__}, which is not plain data")
