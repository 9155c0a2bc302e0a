"""What is probably not meant in a rule that is well formed: names of functions, sites and fields that are not there.

A warning refuses nothing: a function may be registered and a site may come up later. Pure; what there is, the registry
says. Not here: errors (`upon.streams.rules`).
"""

from __future__ import annotations

from collections.abc import Iterator

from upon.errors import FunctionNotFound
from upon.registry import Registry
from upon.streams.conditions import ATTRIBUTES, Expression
from upon.streams.rules import Rule
from upon.streams.wording import suggestion


def warnings_of(rule: Rule, registry: Registry) -> list[str]:
    """Return what a user should look at, each in a sentence that begins with the field."""
    found: list[str] = []
    try:
        registry.function(rule.function, rule.function_version)
    except FunctionNotFound as error:
        found.append(f"run.function: {error}; until it is there, each event is a dead letter")
    for site in rule.sites:
        if site not in registry.sites:
            known = ", ".join(sorted(registry.sites)) or "none yet"
            found.append(f"run.site: site {site!r} was never heard of; there are: {known}")
    asked = {name for name, _ in rule.pattern.fields}  # an extension that the pattern wants is there
    for field, expression in _expressions(rule):
        for name in sorted(expression.extensions - asked):
            found.append(
                f"{field}: reads {name!r}, which an event has only if its source adds such an extension"
                f"{suggestion(name, ATTRIBUTES)}; without it the event is a dead letter, has(event.{name}) looks first"
            )
    return list(dict.fromkeys(found))


def _expressions(rule: Rule) -> Iterator[tuple[str, Expression]]:
    for field, one in (("where", rule.where), ("once", rule.once)):
        if one is not None:
            yield field, one
    for field, template in (("run.args", rule.args), ("run.kwargs", rule.kwargs)):
        for one in template.expressions():
            yield field, one
