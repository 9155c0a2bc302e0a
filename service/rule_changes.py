"""What a request changes of the rules: the records to write, computed from the registry. Pure, no I/O.

    plan = apply(registry, [("thumbs", spec)], file="/home/ann/rules.yaml", principal="ann")
    plan.revisions      wordings that are new; harmless until something puts them in force
    plan.activations    one record that puts all of it in force, or none when nothing changes

Guarantees: one record activates a whole request, so it is in force whole or not at all, also after a crash between
two writes. A wording that was there before keeps its revision; a new one gets a number that was never given. What
somebody disabled by hand stays so until it is enabled by hand. `1`, `1.0` and `true` are three different values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from upon.errors import InputError, RuleNotFound
from upon.messages import RuleActivation, RuleActivations, RuleRevision
from upon.registry import Registry

Change = Literal["new", "changed", "unchanged", "enabled", "disabled", "rolled back", "again", "deleted"]
Action = Literal["apply", "delete", "enable", "disable", "rollback", "prune"]

_canonical = msgspec.msgpack.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What becomes of one rule: how it will stand, and in which wording (its last one when it is deleted)."""

    change: Change
    activation: RuleActivation
    revision: RuleRevision

    @property
    def name(self) -> str:
        return self.activation.rule


@dataclass(frozen=True, slots=True)
class Plan:
    """The records of one request, in the order in which they are written, and what they mean."""

    revisions: tuple[RuleRevision, ...]
    activations: RuleActivations | None
    changes: tuple[RuleChange, ...]


def apply(
    registry: Registry,
    rules: Sequence[tuple[str, dict[str, Any]]],
    *,
    file: str,
    principal: str,
    again: bool = False,
    prune: bool = False,
) -> Plan:
    """Plan to put rules, by name and spec, in force.

    Args:
        again: raise their epochs, so that they fire again for what they have fired for.
        prune: delete the rules that came from `file` and are not among these.

    Raises:
        InputError: two rules have one name; a spec that no record can hold.
    """
    names = [name for name, _ in rules]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"rules: the name {twice!r} is used twice in {file}")
    changes = [_applied(registry, spec, file=file, principal=principal, again=again) for _, spec in rules]
    if prune:
        gone = (name for name, one in registry.rules.items() if one.activation.file == file and name not in set(names))
        changes += [_deleted(registry, name) for name in sorted(gone)]
    return _plan(registry, "apply", principal, changes)


def delete(registry: Registry, names: Sequence[str], *, principal: str) -> Plan:
    """Plan to put rules out of force. Raises RuleNotFound: there is none of a name."""
    return _plan(registry, "delete", principal, [_deleted(registry, name) for name in dict.fromkeys(names)])


def prune(registry: Registry, names: Sequence[str], *, file: str, principal: str) -> Plan:
    """Plan to put out of force the rules that came from `file`, but for `names`."""
    kept = set(names)
    gone = (name for name, one in registry.rules.items() if one.activation.file == file and name not in kept)
    return _plan(registry, "prune", principal, [_deleted(registry, name) for name in sorted(gone)])


def enable(registry: Registry, names: Sequence[str], *, enabled: bool, principal: str) -> Plan:
    """Plan to enable or disable rules by hand. Raises RuleNotFound: there is none of a name."""
    changes = []
    for name in dict.fromkeys(names):
        now = registry.standing(name).activation
        change: Change = "unchanged" if now.enabled == enabled else "enabled" if enabled else "disabled"
        to = msgspec.structs.replace(now, enabled=enabled)
        changes.append(RuleChange(change, to, registry.revision(name, now.revision)))
    return _plan(registry, "enable" if enabled else "disable", principal, changes)


def rollback(registry: Registry, name: str, revision: int | None, *, principal: str) -> Plan:
    """Plan to put an earlier revision in force, by default the one that was before the one that is.

    Raises:
        RuleNotFound: no such rule or revision, or there was none before.
    """
    now = registry.standing(name).activation
    if revision is None:
        earlier = [one.activation.revision for one in registry.timelines[name] if not one.deleted]
        before = [number for number in earlier if number != now.revision]
        if not before:
            raise RuleNotFound(f"rule {name!r} has no revision before {now.revision}")
        revision = before[-1]
    found = registry.revision(name, revision)
    to = msgspec.structs.replace(now, revision=revision)
    change: Change = "unchanged" if to == now else "rolled back"
    return _plan(registry, "rollback", principal, [RuleChange(change, to, found)])


def _applied(registry: Registry, spec: dict[str, Any], *, file: str, principal: str, again: bool) -> RuleChange:
    name: str = spec["name"]
    revisions = registry.revisions.get(name, {})
    timeline = registry.timelines.get(name)
    now = timeline[-1].activation if timeline else None
    revision = _same(revisions, spec) or RuleRevision(
        name=name,
        revision=max(revisions, default=0) + 1,
        spec=spec,
        principal=principal,
        created=time.time_ns(),
    )
    there = now is not None and now.revision > 0
    epoch = (now.epoch if now else 1) + (again and now is not None)
    enabled = now.enabled if there and now else True
    to = RuleActivation(rule=name, revision=revision.revision, enabled=enabled, epoch=epoch, file=file)
    change: Change = "new"
    if there and now:
        change = "changed" if now.revision != to.revision else "again" if again else "unchanged"
    return RuleChange(change, to, revision)


def _same(revisions: Mapping[int, RuleRevision], spec: dict[str, Any]) -> RuleRevision | None:
    """Return the newest revision with this very spec; Python's == would take 1, 1.0 and True for equal."""
    wanted = _encoded(spec)
    return next((revisions[n] for n in sorted(revisions, reverse=True) if _encoded(revisions[n].spec) == wanted), None)


def _encoded(spec: dict[str, Any]) -> bytes:
    try:
        return _canonical(spec)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"rule {spec.get('name')!r}: cannot be stored: {error}") from error


def _deleted(registry: Registry, name: str) -> RuleChange:
    now = registry.standing(name).activation
    # Enabled again: applied anew, the rule does not inherit that it was disabled before it was deleted.
    gone = RuleActivation(rule=name, revision=0, epoch=now.epoch, file=now.file)
    return RuleChange("deleted", gone, registry.revision(name, now.revision))


def _plan(registry: Registry, action: Action, principal: str, changes: Sequence[RuleChange]) -> Plan:
    stands: Callable[[str], RuleActivation | None] = lambda name: (  # noqa: E731
        registry.timelines[name][-1].activation if name in registry.timelines else None
    )
    moved = tuple(one.activation for one in changes if stands(one.name) != one.activation)
    new = tuple(one.revision for one in changes if one.revision.revision not in registry.revisions.get(one.name, {}))
    activations = (
        RuleActivations(number=registry.last_number + 1, rules=moved, action=action, principal=principal)
        if moved
        else None
    )
    return Plan(new, activations, tuple(changes))
