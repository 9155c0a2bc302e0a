"""The rules over time: which of them an event meets that Kafka had at a given moment.

    now     ── index ──▶ the rules in force                        every event walks this one
    before  ── index ──▶ what was in force until something changed      only events older than the last change do

An event is decided by what was in force when Kafka had it, whenever it is read: late, again after a crash, or by
another worker. Guarantees: equal timelines and events give equal rules; a change of one rule costs what that rule
costs, however many there are. Not here: the registry (`upon.streams.catalogue`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from upon.streams.matcher import Matcher
from upon.streams.rules import Rule


class RulesOverTime:
    """Two indexes: over the rules in force, and over those that were.

    Args:
        current: in force from their `since` on.
        past: gives those of a name that were in force from `since` until `until`; asked when an event older than the
            last change comes.
    """

    def __init__(self, current: Iterable[Rule] = (), past: Callable[[str], Iterable[Rule]] = lambda _: ()) -> None:
        rules = [rule for rule in current if rule.enabled]
        self._current = Matcher(rules)
        self._handles = {rule.name: handle for handle, rule in enumerate(rules)}
        self._past_of = past
        self._past: Matcher[Rule] = Matcher()
        self._past_handles: dict[str, list[int]] = {}
        self._stale: dict[str, None] = {}  # names whose past must be read before an old event comes
        self._changed = 0

    def __len__(self) -> int:
        return len(self._current)

    def put(self, name: str, rule: Rule | None, changed: int) -> None:
        """Take in that a rule stands otherwise since `changed`, ns since the epoch. None: it does not fire any more."""
        if (handle := self._handles.pop(name, None)) is not None:
            self._current.remove(handle)
        if rule is not None and rule.enabled:
            self._handles[name] = self._current.add(rule)
        self._stale[name] = None
        self._changed = max(self._changed, changed)

    def forget_past(self, name: str) -> None:
        """Take in that of what a rule was some is no longer known."""
        self._stale[name] = None

    def match(self, event: Mapping[str, Any], at: int) -> Sequence[Rule]:
        """Return the rules, by name, that match an event which Kafka had at `at`, ns since the epoch."""
        found = self._current.match(event)
        if at < self._changed:
            deque(self.read_past(at), maxlen=0)
            found = [rule for rule in found if rule.since <= at]
            found += [rule for rule in self._past.match(event) if rule.since <= at < rule.until]
        return sorted(found, key=lambda rule: rule.name)

    def read_past(self, at: int) -> Iterator[None]:
        """Index what was in force, as far as an event that Kafka had at `at` may need it: one rule a step."""
        while self._stale and at < self._changed:
            del self._stale[name := next(iter(self._stale))]
            for handle in self._past_handles.pop(name, ()):
                self._past.remove(handle)
            if handles := [self._past.add(rule) for rule in self._past_of(name)]:
                self._past_handles[name] = handles
            yield
