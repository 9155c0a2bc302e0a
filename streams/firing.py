"""What a rule does with an event that its pattern matches: an invocation for a site, nothing, or a reason why not.

Pure: equal arguments give equal answers, and the id of an invocation depends on rule, action, epoch and `once` alone,
so a replay gives the same id. A template or condition that fails for an event is a `Refusal`, never an exception.
Guarantee: the payload is plain data; nothing here can unpickle. Not here: Kafka, batches (`upon.streams.reactions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upon.errors import FunctionNotFound, InputError
from upon.events import Event, time_ns
from upon.ids import rule_invocation_id
from upon.messages import Cause, Invocation, SiteStatus
from upon.registry import Registry
from upon.serialize import dumps_plain
from upon.streams.conditions import EvaluationError, Scope
from upon.streams.rules import ACTION, Rule
from upon.streams.wording import unexpected


@dataclass(frozen=True, slots=True)
class Firing:
    """An invocation and the site that shall run it."""

    site: str
    invocation: Invocation


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule that matched and could not fire: a dead letter with this reason."""

    rule: str
    reason: str


def fire(rule: Rule, scope: Scope, registry: Registry, recorded: int) -> Firing | Refusal | None:
    """Decide what `rule` does with the event of `scope`, which its pattern matches.

    Args:
        rule: with its revision and epoch in the registry.
        scope: the event.
        registry: functions and sites as they are now.
        recorded: when Kafka had the event, ns since the epoch.

    Returns:
        The firing; None when the rule's `where` is false; a refusal when something is missing or fails.
    """
    field = "where"
    try:
        if rule.where is not None and not rule.where.holds(scope):
            return None
        field = "once"
        once = default_once(scope.event) if rule.once is None else rule.once.key(scope)
        field = "args"
        args = rule.args.render(scope)
        field = "kwargs"
        payload = dumps_plain([args, rule.kwargs.render(scope)])
        field = "function"
        function = registry.function(rule.function, rule.function_version)
    except EvaluationError as error:
        return Refusal(rule.name, f"rule {rule.name}: {field}: {error}")
    except (InputError, FunctionNotFound) as error:
        return Refusal(rule.name, f"rule {rule.name}: {field}: {type(error).__name__}: {error}")
    except Exception as error:  # a fault of ours, or data nested beyond Python: this event, this rule, nothing else
        return Refusal(rule.name, f"rule {rule.name}: {field}: {unexpected(error)}")
    invocation = Invocation(
        id=rule_invocation_id(rule.name, ACTION, rule.epoch, once),
        code=function.code,
        function=function.name,
        version=function.version,
        payload=payload,
        timeout=rule.timeout,
        retry=rule.retry,
        cause=cause(rule, scope.event, recorded),
    )
    return Firing(choose_site(rule.sites, registry.sites), invocation)


def default_once(event: Event) -> str:
    """Return what makes two deliveries the same event: its source and id, as CloudEvents has it."""
    return f"{event.source}\x00{event.id}"


def cause(rule: Rule, event: Event, recorded: int) -> Cause:
    """Return what made the rule fire, as it travels with the invocation."""
    return Cause(
        rule=rule.name,
        rule_revision=rule.revision,
        action=ACTION,
        epoch=rule.epoch,
        event_id=event.id,
        event_type=event.type,
        event_source=event.source,
        event_subject=event.subject or "",
        event_time=_in_64_bits(time_ns(event.time)) if event.time else 0,
        event_recorded=recorded,
    )


def _in_64_bits(ns: int) -> int:
    """Return a time as a record can carry it: 0, not known, for the years that 64 bits of nanoseconds do not reach."""
    return ns if -(2**63) <= ns < 2**63 else 0


def choose_site(candidates: Sequence[str], sites: Mapping[str, SiteStatus]) -> str:
    """Return the first candidate that is up; else the first that was ever heard of; else the first."""
    known = [site for site in candidates if site in sites]
    up = [site for site in known if sites[site].state == "up"]
    return (up or known or list(candidates))[0]
