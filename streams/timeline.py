"""The rules over time: which of them an event meets that Kafka had at a given moment.

    now     ── index ──▶ the rules in force                        every event walks this one
    before  ── index ──▶ what was in force until something changed      only events older than the last change do

An event is decided by what was in force when Kafka had it, whenever it is read: late, again after a crash, or by
another worker. Guarantee: equal timelines and events give equal rules. Immutable; a change makes a new one, which
takes over what stayed. Not here: the registry (`upon.streams.catalogue`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from upon.streams.matcher import Matcher
from upon.streams.rules import Rule


class RulesOverTime:
    """Two indexes: over the rules in force, and over those that were.

    Args:
        current: in force from their `since` on.
        changed: when the last of all changes was, ns since the epoch.
        past: gives those that were in force from `since` until `until`; asked when an event older than that comes.
    """

    def __init__(
        self, current: Iterable[Rule] = (), changed: int = 0, past: Callable[[], Iterable[Rule]] = tuple
    ) -> None:
        self._current = Matcher(sorted(current, key=lambda rule: rule.name))
        self._changed, self._past_rules = changed, past
        self._past: Matcher[Rule] | None = None

    def __len__(self) -> int:
        return len(self._current)

    def match(self, event: Mapping[str, Any], at: int) -> Sequence[Rule]:
        """Return the rules, by name, that match an event which Kafka had at `at`, ns since the epoch."""
        found = self._current.match(event)
        if at >= self._changed:
            return found
        if self._past is None:
            self._past = Matcher(sorted(self._past_rules(), key=lambda rule: rule.name))
        found = [rule for rule in found if rule.since <= at]
        found += [rule for rule in self._past.match(event) if rule.since <= at < rule.until]
        return sorted(found, key=lambda rule: rule.name)
