"""The index over all rules: which of them match an event, at a cost that hardly depends on how many there are.

The rules are split by the field that most of them pin down (as a rule `type`, then `source`, `subject` or a field
of data): a branch for each exact value, one for each literal beginning (`prefix`, the head of a `wildcard`), and
`rest` for rules that leave the field open; each branch is split again by another field.

    type ── "upon.file.ready" ── subject ── "/data/tomo/…" ── [3 rules]     an event walks down the branches that
     │                              └────── rest ── [1 rule]                fit it, and only the rules at their
     ├───── "lab.sample.ready" ── [2 rules]                                 ends are really tested
     └───── rest ── [1 rule]

Guarantees: `match` gives what `Pattern.matches` of every enabled rule would give, in the order of the rules.
Immutable: a change of the rules makes a new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from upon.streams.operators import Hint, value_key
from upon.streams.patterns import Leaf, Pattern, leaves

SMALL = 3
"""So many rules are tested one by one in place of splitting them further."""
MAX_COPIES = 256
"""A rule with several alternatives stands in several branches, but in no more than this."""

FieldPath = tuple[str, ...]


class Matchable(Protocol):
    """What the index needs of a rule."""

    @property
    def pattern(self) -> Pattern: ...

    @property
    def enabled(self) -> bool: ...


R = TypeVar("R", bound=Matchable)


@dataclass(frozen=True, slots=True)
class _Entry:
    position: int
    hints: dict[FieldPath, frozenset[Hint]]
    copies: int = 1


@dataclass(slots=True)
class _Branch:
    entries: tuple[int, ...] = ()  # positions of rules to test; only at the ends
    path: FieldPath = ()
    exact: dict[Hashable, _Branch] = field(default_factory=dict)
    prefixes: dict[str, _Branch] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()  # of the prefixes, ascending
    rest: _Branch | None = None


class Matcher(Generic[R]):
    """An index over rules.

    Args:
        rules: in the order in which `match` returns them; disabled ones are left out.
    """

    def __init__(self, rules: Iterable[R]) -> None:
        self._rules = tuple(rule for rule in rules if rule.enabled)
        entries = [_Entry(position, _hints(rule.pattern)) for position, rule in enumerate(self._rules)]
        self._root = _build(entries, frozenset())

    def __len__(self) -> int:
        return len(self._rules)

    def match(self, event: Mapping[str, Any]) -> list[R]:
        """Return the rules that match an event: attributes, extensions and `data` in one mapping."""
        positions = self.candidates(event)
        return [self._rules[i] for i in sorted(positions) if self._rules[i].pattern.matches(event)]

    def candidates(self, event: Mapping[str, Any]) -> set[int]:
        """Return the positions of the rules that are tested for an event (for tests and benchmarks)."""
        found: set[int] = set()
        waiting = [self._root]
        while waiting:
            branch = waiting.pop()
            found.update(branch.entries)
            if branch.rest is not None:
                waiting.append(branch.rest)
            if branch.path:
                waiting.extend(_fitting(branch, event))
        return found


def _fitting(branch: _Branch, event: Mapping[str, Any]) -> list[_Branch]:
    fitting: dict[int, _Branch] = {}
    for value in leaves(event, branch.path):
        if (one := branch.exact.get(value_key(value))) is not None:
            fitting[id(one)] = one
        if isinstance(value, str):
            for length in branch.lengths:
                if length > len(value):
                    break
                if (one := branch.prefixes.get(value[:length])) is not None:
                    fitting[id(one)] = one
    return list(fitting.values())


def _hints(pattern: Pattern) -> dict[FieldPath, frozenset[Hint]]:
    """Return, for each field that the pattern pins down wherever it matches, what it may be."""
    found: dict[FieldPath, frozenset[Hint]] = {}
    for _, item in pattern.fields:
        if isinstance(item, Pattern):
            found.update(_hints(item))
        elif hints := _leaf_hints(item):
            found[item.path] = hints
    return found


def _leaf_hints(leaf: Leaf) -> frozenset[Hint]:
    if leaf.absent or any(one.hint is None for one in leaf.alternatives):
        return frozenset()
    return frozenset(one.hint for one in leaf.alternatives if one.hint is not None)


def _build(entries: list[_Entry], used: frozenset[FieldPath]) -> _Branch:
    path = _best_split(entries, used) if len(entries) > SMALL else None
    if path is None:
        return _Branch(entries=tuple(entry.position for entry in entries))
    exact: dict[Hashable, list[_Entry]] = {}
    prefixes: dict[str, list[_Entry]] = {}
    rest: list[_Entry] = []
    for entry in entries:
        hints = entry.hints.get(path)
        if not hints or entry.copies * len(hints) > MAX_COPIES:
            rest.append(entry)
            continue
        copy = _Entry(entry.position, entry.hints, entry.copies * len(hints))
        for hint in hints:
            if hint.kind == "exact":
                exact.setdefault(hint.key, []).append(copy)
            else:
                prefixes.setdefault(str(hint.key), []).append(copy)
    below = used | {path}
    return _Branch(
        path=path,
        exact={key: _build(group, below) for key, group in exact.items()},
        prefixes={key: _build(group, below) for key, group in prefixes.items()},
        lengths=tuple(sorted({len(key) for key in prefixes})),
        rest=_build(rest, below) if rest else None,
    )


def _best_split(entries: list[_Entry], used: frozenset[FieldPath]) -> FieldPath | None:
    """Return the field that most of the rules pin down, of those the one with most different values."""
    rules: Counter[FieldPath] = Counter()
    values: dict[FieldPath, set[Hint]] = {}
    for entry in entries:
        for path, hints in entry.hints.items():
            if path not in used:
                rules[path] += 1
                values.setdefault(path, set()).update(hints)
    splitting = [path for path in rules if len(values[path]) > 1 or rules[path] < len(entries)]
    if not splitting:
        # every rule wants the same single value of each field: one look at it can still spare all the tests
        splitting = list(rules)
    return max(splitting, key=lambda path: (rules[path], len(values[path]), path), default=None)
