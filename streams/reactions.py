"""From one record of `upon.events` to the records it causes: batches of invocations, and dead letters.

    read_record ─▶ match ─▶ fire ─▶ a firing; `batches` joins them, one InvocationBatch per site and function
         │                    └───▶ a dead letter: the rule, the expression, the reason
         └─────────────────────────▶ a dead letter: this is no CloudEvent

Pure: no clock, no Kafka. Guarantee: whatever is in the record, the answer is records, never an exception.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from upon.deadletters import Received, alone, letter, only_rule
from upon.errors import EventError
from upon.events import Event, read_record
from upon.messages import COALESCE_BYTES, DeadLetter, Invocation, InvocationBatch
from upon.registry import Registry
from upon.streams.conditions import Scope
from upon.streams.firing import Firing, Refusal, fire
from upon.streams.matcher import Matcher
from upon.streams.rules import Rule

PRINCIPAL = "streams"
"""Who asks for the invocations that rules fire."""
ACTION = "run"
"""The one action of a rule: the key of the rule's spec that says what runs."""


@dataclass(frozen=True, slots=True)
class Fired:
    """A firing and the event behind it. `position`: which one of a batch record, None for a single event."""

    firing: Firing
    event: Event
    position: int | None


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a record causes, in the order of its events."""

    fired: tuple[Fired, ...] = ()
    letters: tuple[DeadLetter, ...] = ()


def react(record: Received, matcher: Matcher[Rule], registry: Registry, now: int) -> Reaction:
    """Return what a record causes.

    Args:
        record: as Kafka delivered it.
        matcher: over all rules.
        registry: functions and sites as they are now.
        now: ns since the epoch.
    """
    try:
        return _react(record, matcher, registry, now)
    except Exception as error:  # a fault of ours must not stop the stream for all that comes after this record
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"unexpected {type(error).__name__}: {error} ({where.name}, line {where.lineno}): please report it"
        return Reaction(letters=(letter(record, "streams", reason, now),))


def _react(record: Received, matcher: Matcher[Rule], registry: Registry, now: int) -> Reaction:
    found = read_record(record.value, record.headers)
    batch, only = _is_batch(record), only_rule(record.headers)
    fired: list[Fired] = []
    letters: list[DeadLetter] = []
    for number, event in enumerate(found):
        position = number if batch else None
        if isinstance(event, EventError):
            one = alone(record, position, None)
            letters.append(letter(one, "streams", f"EventError: {event}", now, about=str(position)))
            continue
        scope = Scope(event)
        matching = [rule for rule in matcher.match(scope.fields) if only in (None, rule.name)]
        if only is not None and not matching:
            letters.append(_unmatched(record, position, event, only, now))
        for rule in matching:
            outcome = fire(rule, scope, registry, record.recorded)
            if isinstance(outcome, Firing):
                fired.append(Fired(outcome, event, position))
            elif isinstance(outcome, Refusal):
                letters.append(
                    letter(
                        alone(record, position, event),
                        "streams",
                        outcome.reason,
                        now,
                        about=str(position),
                        rule=rule.name,
                        action=ACTION,
                        event_id=event.id,
                        function=rule.function,
                    )
                )
    return Reaction(tuple(fired), tuple(letters))


def batches(firings: Iterable[Firing], now: int) -> list[InvocationBatch]:
    """Return the invocations in batches, one per site and function, a new one past `COALESCE_BYTES`.

    Of invocations with the same id only the first is kept.
    """
    grouped: dict[tuple[str, str], list[Invocation]] = {}
    seen: set[tuple[str, str]] = set()
    for firing in firings:
        if (firing.site, firing.invocation.id) not in seen:
            seen.add((firing.site, firing.invocation.id))
            grouped.setdefault((firing.site, firing.invocation.code), []).append(firing.invocation)
    out: list[InvocationBatch] = []
    for (site, _), invocations in grouped.items():
        waiting: list[Invocation] = []
        size = 0
        for invocation in invocations:
            if waiting and size + len(invocation.payload) > COALESCE_BYTES:
                out.append(_batch(site, waiting, now))
                waiting, size = [], 0
            waiting.append(invocation)
            size += len(invocation.payload)
        out.append(_batch(site, waiting, now))
    return out


def _batch(site: str, invocations: list[Invocation], now: int) -> InvocationBatch:
    return InvocationBatch(site=site, principal=PRINCIPAL, submitted=now, invocations=tuple(invocations))


def _unmatched(record: Received, position: int | None, event: Event, rule: str, now: int) -> DeadLetter:
    """Return the letter of an event that was published again for one rule, in vain."""
    reason = f"rule {rule}: tried again, but there is no such rule, or its pattern does not match this event"
    one = alone(record, position, event)
    return letter(one, "streams", reason, now, about=str(position), rule=rule, action=ACTION, event_id=event.id)


def _is_batch(record: Received) -> bool:
    binary = any(name.lower() == "ce_specversion" for name, _ in record.headers)
    return not binary and (record.value or b"").lstrip()[:1] == b"["
