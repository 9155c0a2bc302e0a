"""From one record of `upon.events` to what it causes: invocations, and dead letters.

    read_record ─▶ match ─▶ fire ─▶ a firing: an invocation for a site
         │                    └───▶ a dead letter: the rule, the expression, the reason
         └─────────────────────────▶ a dead letter: this is no CloudEvent

Pure: no clock, no Kafka. Guarantee: whatever is in the record, the answer is records, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from upon.deadletters import Received, alone, is_batch, letter, only_rule
from upon.errors import EventError
from upon.events import Event, read_record
from upon.messages import DeadLetter
from upon.moments import Moment
from upon.registry import Registry
from upon.streams.conditions import Scope
from upon.streams.firing import CHAIN_LIMIT, Firing, Refusal, fire
from upon.streams.rules import ACTION, Rule
from upon.streams.wording import unexpected

PRINCIPAL = "streams"
"""Who asks for the invocations that rules fire."""
SLICE = 200
"""Events, or effects, after which others get their turn."""
MAX_BAD = 100
"""Elements of one batch record that are no events and get a letter each; of more, one letter tells for all."""


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


class Rules(Protocol):
    """The rules, each for its time."""

    def match(self, event: Mapping[str, Any], at: int) -> Sequence[Rule]:
        """Return the rules whose pattern an event matches that Kafka had at `at` (`Registry.time_of`)."""


def react(
    record: Received, rules: Rules, registry: Registry, now: int, *, chain_limit: int = CHAIN_LIMIT
) -> Iterator[Reaction]:
    """Return what a record causes, a slice of its events at a time: a record may hold hundreds of thousands.

    Of invocations of one record with the same site and id only the first is kept.

    Args:
        record: as Kafka delivered it; when Kafka had it decides which revisions it meets.
        rules: all of them.
        registry: functions and sites as they are now.
        now: ns since the epoch.
        chain_limit: how often a rule may fire in one chain.
    """
    try:
        yield from _react(record, rules, registry, now, chain_limit)
    except Exception as error:  # a fault of ours must not stop the stream for all that comes after this record
        yield Reaction(letters=(letter(record, "streams", unexpected(error), now),))


def _react(record: Received, rules: Rules, registry: Registry, now: int, chain_limit: int) -> Iterator[Reaction]:
    found = read_record(record.value, record.headers)
    at = registry.time_of(Moment(record.recorded, record.partition, record.offset))
    batch, only = is_batch(record), only_rule(record.headers)
    seen: set[tuple[str, str]] = set()
    number = bad = 0
    fired: list[Fired] = []
    letters: list[DeadLetter] = []
    for number, event in enumerate(found):
        if len(fired) + len(letters) >= SLICE or number % SLICE == SLICE - 1:
            yield Reaction(tuple(fired), tuple(letters))
            fired, letters = [], []
        position = number if batch else None
        if isinstance(event, EventError):
            bad += 1
            if bad <= MAX_BAD:
                one = alone(record, position, event)
                letters.append(letter(one, "streams", f"EventError: {event}", now, about=str(position)))
            continue
        scope = Scope(event, len(record.value or b""))
        try:
            matching = [rule for rule in rules.match(scope.fields, at) if only in (None, rule.name)]
        except Exception as error:  # a fault of ours
            one = alone(record, position, event)
            letters.append(letter(one, "streams", unexpected(error), now, about=str(position), event_id=event.id))
            continue
        if only is not None and not matching:
            letters.append(_unmatched(record, position, event, only, now))
        for rule in matching:
            outcome = fire(rule, scope, registry, record.recorded, now=now, chain_limit=chain_limit)
            if isinstance(outcome, Firing):
                if (outcome.site, outcome.invocation.id) not in seen:
                    seen.add((outcome.site, outcome.invocation.id))
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
    if bad > MAX_BAD:
        reason = f"EventError: {bad:,} of {number + 1:,} elements are no events; the first {MAX_BAD} have letters"
        letters.append(letter(record, "streams", reason, now, about="others"))
    yield Reaction(tuple(fired), tuple(letters))


def _unmatched(record: Received, position: int | None, event: Event, rule: str, now: int) -> DeadLetter:
    """Return the letter of an event that was published again for one rule, in vain."""
    reason = f"rule {rule}: tried again, but there is no such rule, or its pattern does not match this event"
    one = alone(record, position, event)
    return letter(one, "streams", reason, now, about=str(position), rule=rule, action=ACTION, event_id=event.id)
