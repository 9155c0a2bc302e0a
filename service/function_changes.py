"""What deleting versions of a function means: which are gone, and which rules run them. Pure, no I/O.

A deleted version leaves a record without its source text, so that its number is not given again. The one before is the
newest then. The code itself goes when nobody needs it any more (`upon.service.unused_code`): tasks that are queued run.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from upon.errors import Conflict, FunctionNotFound
from upon.messages import FunctionRecord
from upon.registry import NAMED, Registry, split_function


def deletion(registry: Registry, function: str, *, force: bool, principal: str, now: int) -> list[FunctionRecord]:
    """Return what is to be written so that versions of a function are gone.

    Args:
        function: ``name@version``, or a name for all its versions.
        force: also what rules run.
        now: ns since the epoch.

    Raises:
        FunctionNotFound: no such name or version.
        Conflict: rules run it; the message names them.
    """
    name, version = split_function(function)
    found = registry.function(name, version)
    chosen = list(registry.functions[name].values()) if version is None else [found]
    if not force:
        used = users(registry, name)
        rules = sorted({rule for one in chosen for rule in used.get(one.version, ())})
        if rules:
            listed = ", ".join(rules[:NAMED]) + (f" and {len(rules) - NAMED:,} more" if len(rules) > NAMED else "")
            raise Conflict(
                f"function {function} is what {'rule' if len(rules) == 1 else 'rules'} {listed} run"
                f"{'s' if len(rules) == 1 else ''}: change or delete {'it' if len(rules) == 1 else 'them'} first, or "
                "use --force (REST: force=true)"
            )
    return [msgspec.structs.replace(one, source="", deleted=now, deleted_by=principal) for one in chosen]


def users(registry: Registry, name: str) -> Mapping[int, list[str]]:
    """Return the rules that run each version of a function, by version: those that name it, and for the newest those
    that name none. Disabled ones count: they may be enabled."""
    versions = registry.functions.get(name)
    if not versions:
        return {}
    found: dict[int, list[str]] = {}
    for rule, standing in sorted(registry.rules.items()):
        revision = registry.revisions.get(rule, {}).get(standing.activation.revision)
        if revision is None:
            continue
        try:
            named, version = split_function(revision.spec["run"]["function"])
        except (KeyError, TypeError, AttributeError, FunctionNotFound):  # not of this version's form: it runs nothing
            continue
        if named == name:
            found.setdefault(max(versions) if version is None else version, []).append(rule)
    return found
