"""Event patterns as in Amazon EventBridge, over the attributes, extensions and data of a CloudEvent.

    {type: [upon.file.ready], data: {size: [{numeric: [">", 0]}], kind: [tomo, {prefix: "x"}]}}

Every field named must match, one alternative of its list is enough; `$or: [{…}, {…}]` wants one of several
mappings. Meaning of arrays, as in EventBridge: a list in the event matches when one of its elements does, and
fields below a list of objects must match within the same object. A *leaf* is a scalar (null included), also
inside a list; `exists: true` wants a leaf, `exists: false` wants none at this place anywhere in the event, so an
object or an empty list counts as none.

One deliberate difference: numbers are compared by value (300 matches 3.0e2), not by how they are written.
`matches` is the definition; `upon.streams.matcher` gives the same answer for many patterns at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from upon.events import ATTRIBUTES
from upon.streams.operators import COMPARISONS, OPERATORS, Alternative, Path, PatternError, parse_alternative
from upon.streams.wording import article, suggestion

_EXTENSION = re.compile(r"[a-z0-9]{1,64}")
_FIELDS = sorted(ATTRIBUTES - {"data_base64"})


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field with its alternatives. `path`: its place in the event, keys only."""

    path: tuple[str, ...]
    alternatives: tuple[Alternative, ...]

    @property
    def absent(self) -> bool:
        """Whether the field may be missing."""
        return any(one.absent for one in self.alternatives)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A mapping of a pattern: all `fields` and, of each group in `any_of`, one pattern must match."""

    fields: tuple[tuple[str, Leaf | Pattern], ...]
    any_of: tuple[tuple[Pattern, ...], ...] = ()

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Tell whether an event (attributes, extensions and `data` in one mapping) matches."""
        return _matches(self, event, event)


def parse_pattern(spec: Any) -> Pattern:
    """Return the pattern that `spec`, plain data from YAML or JSON, describes.

    Raises:
        PatternError: the first thing that is wrong; `check_pattern` gives all.
    """
    pattern, problems = check_pattern(spec)
    if problems:
        raise problems[0]
    return pattern


def check_pattern(spec: Any) -> tuple[Pattern, list[PatternError]]:
    """Return the pattern, as far as it can be read, and everything that is wrong in it."""
    problems: list[PatternError] = []
    pattern = _mapping(spec, (), (), problems)
    return pattern, problems


def _mapping(spec: Any, place: Path, path: tuple[str, ...], problems: list[PatternError]) -> Pattern:
    if not isinstance(spec, dict):
        problems.append(PatternError(place, f"must be a mapping of fields, not {article(spec)}"))
        return Pattern(())
    if not spec:
        problems.append(
            PatternError(place, "an empty pattern matches nothing; for every event: source: [{exists: true}]")
        )
    fields: list[tuple[str, Leaf | Pattern]] = []
    groups: list[tuple[Pattern, ...]] = []
    for name, value in spec.items():
        here = (*place, name)
        if name == "$or":
            groups.append(_alternatives_of_or(value, here, path, problems))
        elif problem := _name_problem(name, path):
            problems.append(PatternError(here, problem))
        elif isinstance(value, dict):
            if problem := _nesting_problem(name, value, path):
                problems.append(PatternError(here, problem))
            else:
                fields.append((name, _mapping(value, here, (*path, name), problems)))
        else:
            fields.append((name, _leaf(value, here, (*path, name), problems)))
    return Pattern(tuple(fields), tuple(groups))


def _alternatives_of_or(
    value: Any, place: Path, path: tuple[str, ...], problems: list[PatternError]
) -> tuple[Pattern, ...]:
    if not isinstance(value, list) or len(value) < 2:
        problems.append(PatternError(place, "must be a list of at least two mappings of fields"))
        return ()
    return tuple(_mapping(one, (*place, index), path, problems) for index, one in enumerate(value))


def _leaf(value: Any, place: Path, path: tuple[str, ...], problems: list[PatternError]) -> Leaf:
    if not isinstance(value, list) or not value:
        hint = "" if isinstance(value, list) else f": write [{value}]" if isinstance(value, str | int | float) else ""
        what = "an empty list" if isinstance(value, list) else article(value)
        problems.append(PatternError(place, f"must be a list of alternatives, not {what}{hint}"))
        return Leaf(path, ())
    found = []
    for index, one in enumerate(value):
        try:
            found.append(parse_alternative(one, (*place, index)))
        except PatternError as problem:
            problems.append(problem)
    return Leaf(path, tuple(found))


def _name_problem(name: Any, path: tuple[str, ...]) -> str | None:
    if not isinstance(name, str):
        return f"a field's name is a string, not {article(name)}: put it in quotes"
    if path:
        return None
    if name == "data_base64":
        return "bytes cannot be matched; match the attributes, such as datacontenttype"
    if name in _FIELDS or _EXTENSION.fullmatch(name):
        return None
    return (
        f"no event has an attribute {name!r}{suggestion(name, _FIELDS)}; allowed: {', '.join(_FIELDS)}, "
        "extensions (lower-case letters and digits) and $or"
    )


def _nesting_problem(name: str, value: dict[Any, Any], path: tuple[str, ...]) -> str | None:
    if len(value) == 1 and _looks_like_operator(*next(iter(value.items()))):
        return f"an operator stands in a list: write [{{{next(iter(value))}: …}}]"
    if not path and name != "data":
        return f"only data has fields below it; {name} is a single value: write a list of alternatives"
    return None


def _looks_like_operator(name: Any, operand: Any) -> bool:
    """`size: {numeric: [">", 0]}` would be a field "numeric" of an object "size": never what was meant."""
    if name not in OPERATORS or isinstance(operand, dict):
        return False
    return (
        not isinstance(operand, list)
        or name == "anything-but"
        or (name == "numeric" and bool(operand) and isinstance(operand[0], str) and operand[0] in COMPARISONS)
    )


def _matches(pattern: Pattern, here: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    for name, field in pattern.fields:
        value = here.get(name, _MISSING)
        if isinstance(field, Leaf):
            if not _leaf_matches(field, value, event):
                return False
        elif not any(_matches(field, one, event) for one in _objects(value)):
            return False
    return all(any(_matches(one, here, event) for one in group) for group in pattern.any_of)


def _leaf_matches(leaf: Leaf, value: Any, event: Mapping[str, Any]) -> bool:
    if any(one.test(found) for found in scalars(value) for one in leaf.alternatives):
        return True
    return leaf.absent and next(leaves(event, leaf.path), _MISSING) is _MISSING


class _Missing:
    """What stands where there is no value: it has no scalars and no objects."""


_MISSING = _Missing()


def scalars(value: Any) -> Iterator[Any]:
    """Yield a value if it is a scalar, or the scalars in it if it is a list, however nested."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(reversed(one))
        elif not isinstance(one, dict | _Missing):
            yield one


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a value, or an empty one: below a scalar or nothing, every field is absent."""
    found: list[Mapping[str, Any]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found.append(one)
        elif isinstance(one, list):
            waiting.extend(one)
    return found or [{}]


def leaves(event: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Any]:
    """Yield every leaf at `path`, through all lists on the way."""
    *parents, last = path
    level: list[Mapping[str, Any]] = [event]
    for name in parents:
        level = [one for parent in level for one in _objects(parent.get(name))]
    for parent in level:
        yield from scalars(parent.get(last, _MISSING))
