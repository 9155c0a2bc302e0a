"""The index over all rules: which of them match an event, at a cost that hardly depends on how many there are.

At a node, each rule stands under one field that it pins down (as a rule the one that most rules there do: `type`,
`subject`, a field of data), under each exact value or literal beginning (`prefix`, the head of a `wildcard`) that it
allows; below, under another field, until few are together. Rules that leave all fields open stay at the node.

    node ── type ──┬── "upon.file.ready" ── subject ── "/data/tomo/…" ── [3 rules]     an event goes where its values
     │             └── "lab.sample.ready" ── [2 rules]                                 lead, and only the rules found
     ├── data.run ──── 17 ── [1 rule]                                                  there are really tested
     └── [1 rule that leaves all fields open]

Guarantees: `match` gives what `Pattern.matches` of every enabled rule would give, in the order in which they came. A
rule comes and goes at a cost that does not depend on how many there are. Nothing here recurses. Not thread-safe.
A branch that loses its last rule may stay, empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from upon.streams.operators import Hint, value_key
from upon.streams.patterns import Leaf, Pattern, scalars

SMALL = 3
"""So many rules are tested one by one in place of splitting them further."""
MAX_COPIES = 256
"""A rule with several alternatives stands in several branches, but in no more than this."""
MAX_DEPTH = 12
"""Fields by which rules are told apart one after the other, at most: rules with more in common are few."""

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
    handle: int
    hints: dict[FieldPath, frozenset[Hint]]
    copies: int = 1


@dataclass(slots=True)
class _Node:
    used: frozenset[FieldPath] = frozenset()  # the fields on the way here
    entries: dict[int, _Entry] = field(default_factory=dict)
    most: int = SMALL  # so many entries may be here before they are split
    splits: dict[FieldPath, _Split] = field(default_factory=dict)
    fields: dict[str, _Field] = field(default_factory=dict)  # the same, by the names on their way


@dataclass(slots=True)
class _Field:
    split: _Split | None = None
    below: dict[str, _Field] = field(default_factory=dict)


@dataclass(slots=True)
class _Split:
    exact: dict[Hashable, _Node] = field(default_factory=dict)
    prefixes: dict[str, _Node] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()  # of the prefixes, ascending

    def node(self, hint: Hint, used: frozenset[FieldPath]) -> _Node:
        """Return the node for a hint, a new one if need be."""
        if hint.kind == "exact":
            found = self.exact.get(hint.key)
            if found is None:
                found = self.exact[hint.key] = _Node(used)
            return found
        key = str(hint.key)
        found = self.prefixes.get(key)
        if found is None:
            found = self.prefixes[key] = _Node(used)
            if len(key) not in self.lengths:
                self.lengths = tuple(sorted((*self.lengths, len(key))))
        return found

    def fitting(self, value: Any) -> Iterator[_Node]:
        """Yield the nodes to which a field's value leads."""
        for one in (value,) if isinstance(value, str) else scalars(value):
            if (found := self.exact.get(value_key(one))) is not None:
                yield found
            if isinstance(one, str):
                for length in self.lengths:
                    if length > len(one):
                        break
                    if (found := self.prefixes.get(one[:length])) is not None:
                        yield found


class Matcher(Generic[R]):
    """An index over rules.

    Args:
        rules: in the order in which `match` returns them; disabled ones are left out.
    """

    def __init__(self, rules: Iterable[R] = ()) -> None:
        self._rules: dict[int, R] = {}
        self._places: dict[int, list[_Node]] = {}
        self._root = _Node()
        self._next = 0
        for rule in rules:
            if rule.enabled:
                handle = self._number(rule)
                self._stand(self._root, _Entry(handle, _hints(rule.pattern)))
        self._split([self._root])

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, rule: R) -> int:
        """Take in a rule, enabled or not; return its handle, for `remove`."""
        handle = self._number(rule)
        waiting = [(self._root, _Entry(handle, _hints(rule.pattern)))]
        full: list[_Node] = []
        while waiting:
            node, entry = waiting.pop()
            path = _known_path(node, entry) if node.splits else None
            if path is not None:
                waiting += _descend(node, path, entry)
            else:
                self._stand(node, entry)
                if len(node.entries) > node.most:
                    full.append(node)
        self._split(full)
        return handle

    def remove(self, handle: int) -> None:
        """Forget a rule."""
        del self._rules[handle]
        for node in self._places.pop(handle):
            del node.entries[handle]

    def match(self, event: Mapping[str, Any]) -> list[R]:
        """Return the rules that match an event: attributes, extensions and `data` in one mapping."""
        rules = self._rules
        return [rules[one] for one in sorted(self.candidates(event)) if rules[one].pattern.matches(event)]

    def candidates(self, event: Mapping[str, Any]) -> set[int]:
        """Return the handles of the rules that are tested for an event (for tests and benchmarks)."""
        found: set[int] = set()
        seen: set[int] = set()  # nodes: several elements of a list may lead to the same
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            found.update(node.entries)
            level: list[tuple[dict[str, _Field], Mapping[str, Any]]] = [(node.fields, event)] if node.fields else []
            while level:
                fields, here = level.pop()
                for name in fields if len(fields) <= len(here) else here:
                    if name not in here or (one := fields.get(name)) is None:
                        continue
                    value = here[name]
                    if one.split is not None:
                        waiting.extend(one.split.fitting(value))
                    if one.below:
                        level.extend((one.below, inner) for inner in _mappings(value))
        return found

    def _number(self, rule: R) -> int:
        handle = self._next
        self._next += 1
        self._rules[handle] = rule
        self._places[handle] = []
        return handle

    def _stand(self, node: _Node, entry: _Entry) -> None:
        node.entries[entry.handle] = entry
        self._places[entry.handle].append(node)

    def _split(self, full: list[_Node]) -> None:
        """Put what stands at nodes with too many entries under fields, and so on below."""
        while full:
            node = full.pop()
            if len(node.entries) <= node.most:
                continue
            rank = _rank(node)
            touched: dict[int, _Node] = {}
            for entry in list(node.entries.values()):
                paths = _open_paths(node, entry)
                if not paths:
                    continue
                del node.entries[entry.handle]
                # by identity: nodes are compared by what is in them
                places = self._places[entry.handle]
                del places[next(index for index, place in enumerate(places) if place is node)]
                for child, copy in _descend(node, max(paths, key=rank.__getitem__), entry):
                    self._stand(child, copy)
                    touched[id(child)] = child
            full.extend(child for child in touched.values() if len(child.entries) > child.most)
            node.most = max(SMALL, 2 * len(node.entries))  # what stays cannot be split: do not try with each new one


def _open_paths(node: _Node, entry: _Entry) -> list[FieldPath]:
    """Return the fields by which an entry can be told apart at a node."""
    if len(node.used) >= MAX_DEPTH:
        return []
    return [
        path for path, hints in entry.hints.items() if path not in node.used and entry.copies * len(hints) <= MAX_COPIES
    ]


def _known_path(node: _Node, entry: _Entry) -> FieldPath | None:
    """Return the field under which an entry goes at a node that has some already."""
    paths = _open_paths(node, entry)
    splits = node.splits
    return max(
        paths,
        key=lambda path: (len(splits[path].exact) + len(splits[path].prefixes) if path in splits else 0, path),
        default=None,
    )


def _rank(node: _Node) -> dict[FieldPath, tuple[bool, int, int, FieldPath]]:
    """Return how well each field tells the entries of a node apart: it has several values, many rules pin it down."""
    rules: Counter[FieldPath] = Counter()
    values: dict[FieldPath, set[Hint]] = {}
    for entry in node.entries.values():
        for path in _open_paths(node, entry):
            rules[path] += 1
            values.setdefault(path, set()).update(entry.hints[path])
    count = len(node.entries)
    return {
        path: (len(values[path]) > 1 or rules[path] < count, rules[path], len(values[path]), path) for path in rules
    }


def _descend(node: _Node, path: FieldPath, entry: _Entry) -> list[tuple[_Node, _Entry]]:
    """Return where an entry goes below a node, under a field: a copy for each of its hints."""
    split = node.splits.get(path)
    if split is None:
        split = node.splits[path] = _Split()
        fields = node.fields
        for name in path[:-1]:
            fields = fields.setdefault(name, _Field()).below
        fields.setdefault(path[-1], _Field()).split = split
    hints = entry.hints[path]
    copy = _Entry(entry.handle, entry.hints, entry.copies * len(hints))
    used = node.used | {path}
    return [(split.node(hint, used), copy) for hint in hints]


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in a value: itself, or those in a list, however nested."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
        elif isinstance(one, list):
            waiting.extend(one)


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
