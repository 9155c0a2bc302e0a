"""What a rule does with an event that its pattern matches: an invocation for a site, nothing, or a reason why not.

Pure: equal arguments give equal answers, and the id of an invocation depends on rule, action, epoch and `once` alone,
so a replay gives the same id. A template or condition that fails for an event is a `Refusal`, never an exception.
Guarantee: the payload is plain data; nothing here can unpickle. Not here: Kafka, batches (`upon.streams.reactions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from upon.chains import MAX_CHAIN, chain_of, chain_text
from upon.errors import FunctionNotFound, InputError
from upon.events import Event, time_ns
from upon.ids import rule_invocation_id
from upon.messages import Cause, Invocation
from upon.registry import Registry
from upon.serialize import dumps_plain
from upon.streams.conditions import EvaluationError, Scope
from upon.streams.rules import ACTION, Rule
from upon.streams.wording import unexpected

CHAIN_LIMIT = 8
"""How often a rule may fire in one chain of events and tasks, unless a setting says otherwise."""
FILE_READY = "upon.file.ready"


class ChainError(InputError):
    """A chain of firings that must not go on."""


@dataclass(frozen=True, slots=True)
class Firing:
    """An invocation and the site that shall run it; `open`: as far as no other one was chosen before."""

    site: str
    invocation: Invocation
    open: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule that matched and could not fire: a dead letter with this reason."""

    rule: str
    reason: str


def fire(
    rule: Rule, scope: Scope, registry: Registry, recorded: int, *, now: int, chain_limit: int = CHAIN_LIMIT
) -> Firing | Refusal | None:
    """Decide what `rule` does with the event of `scope`, which its pattern matches.

    Args:
        rule: with its revision and epoch in the registry.
        scope: the event.
        registry: functions and sites as they are now.
        recorded: when Kafka had the event, ns since the epoch.
        now: ns since the epoch.
        chain_limit: how often a rule may fire in one chain.

    Returns:
        The firing; None when the rule's `where` is false, or the event is a file that its own task has made; a
        refusal when something is missing or fails.
    """
    field = "where"
    try:
        if is_output(rule, scope.event) or (rule.where is not None and not rule.where.holds(scope)):
            return None
        field = "once"
        once = default_once(scope.event) if rule.once is None else rule.once.key(scope)
        field = "chain"
        root, chain = _chain(rule, scope.event, chain_limit)
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
        resources=rule.resources,
        priority=rule.priority,
        limits=rule.limits,
        memoize=rule.memoize,
        retry=rule.retry,
        cause=replace(cause(rule, scope.event, recorded), root=root, chain=chain),
    )
    site = choose_site(rule.sites, registry, now)
    # A site that nobody has heard of is no choice to keep: its topic may not exist, and another may come up first.
    return Firing(site, invocation, open=len(rule.sites) > 1 and site in registry.sites)


def is_output(rule: Rule, event: Event) -> bool:
    """Whether an event announces a file that the rule's own task writes, as its `outputs` say."""
    if not rule.outputs or event.type != FILE_READY or event.subject is None:
        return False
    return any(one.fullmatch(event.subject) for one in rule.outputs)


def _chain(rule: Rule, event: Event, limit: int) -> tuple[str, dict[str, int]]:
    """Return root and firings of the chain with this firing in it. Raises ChainError when it must stop here."""
    root, chain = chain_of(event.extensions)
    chain[rule.name] = chain.get(rule.name, 0) + 1
    if chain[rule.name] > limit:
        raise ChainError(
            f"stopped: this event descends from {limit} firings of this very rule, beginning with event {root}: a rule "
            "that feeds itself would run for ever; exclude in its pattern what its function publishes, or raise "
            "UPON_CHAIN_LIMIT"
        )
    if len(chain_text(chain)) > MAX_CHAIN:
        raise ChainError(f"stopped: the chain that began with event {root} leads through {len(chain)} rules")
    return root or event.id, chain


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


def choose_site(candidates: Sequence[str], registry: Registry, now: int) -> str:
    """Return the first candidate that is up; else the first that was ever heard of; else the first."""
    known = [site for site in candidates if site in registry.sites]
    up = [site for site in known if registry.is_up(site, now)]
    return (up or known or list(candidates))[0]
