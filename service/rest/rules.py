"""/v1/rules: put rules in force, all of a file or none; list them, their history, and take them out of force."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from upon import api
from upon.errors import InputError
from upon.service import rule_changes
from upon.service.context import PRINCIPAL, Service
from upon.service.rest import views
from upon.service.rest.routing import LIMIT, Query, Route, answer, limit_of, read_body


async def apply(service: Service, request: web.Request) -> web.Response:
    new = await read_body(request, api.NewRules)
    specs, warnings = await _parsed(service, new)
    changes = await service.registrar.change_rules(
        lambda registry: rule_changes.apply(
            registry, specs, file=new.file, principal=PRINCIPAL, again=new.again, prune=new.prune
        )
    )
    return answer([_changed(service, one, warnings) for one in changes])


async def check(service: Service, request: web.Request) -> web.Response:
    new = await read_body(request, api.NewRules)
    specs, warnings = await _parsed(service, new)
    plan = rule_changes.apply(
        service.registrar.registry, specs, file=new.file, principal=PRINCIPAL, again=new.again, prune=new.prune
    )
    return answer([_changed(service, one, warnings) for one in plan.changes])


async def prune(service: Service, request: web.Request) -> web.Response:
    new = await read_body(request, api.NewRules)
    specs, _ = await _parsed(service, new)
    changes = await service.registrar.change_rules(
        lambda registry: rule_changes.prune(registry, [name for name, _ in specs], file=new.file, principal=PRINCIPAL)
    )
    return answer([_changed(service, one) for one in changes])


async def _parsed(service: Service, new: api.NewRules) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, list[str]]]:
    """Return name and spec of each rule, and what of it is probably not meant. Raises RuleError."""
    from upon.streams.rules import parse_rules  # pulls in YAML and CEL: not for a start
    from upon.streams.warnings import warnings_of

    rules = await asyncio.to_thread(parse_rules, new.yaml, new.file)
    registry = service.registrar.registry
    return [(one.name, one.spec) for one in rules], {one.name: warnings_of(one, registry) for one in rules}


async def enable(service: Service, request: web.Request) -> web.Response:
    return await _enabled(service, request, enabled=True)


async def disable(service: Service, request: web.Request) -> web.Response:
    return await _enabled(service, request, enabled=False)


async def _enabled(service: Service, request: web.Request, *, enabled: bool) -> web.Response:
    name = request.match_info["name"]
    (one,) = await service.registrar.change_rules(
        lambda registry: rule_changes.enable(registry, [name], enabled=enabled, principal=PRINCIPAL)
    )
    return answer(_changed(service, one))


async def rollback(service: Service, request: web.Request) -> web.Response:
    name, text = request.match_info["name"], request.query.get("revision")
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"revision: must be a whole number from 1, not {text[:60]!r}")
    revision = None if text is None else int(text)
    (one,) = await service.registrar.change_rules(
        lambda registry: rule_changes.rollback(registry, name, revision, principal=PRINCIPAL)
    )
    return answer(_changed(service, one))


async def history(service: Service, request: web.Request) -> web.Response:
    name, registry = request.match_info["name"], service.registrar.registry
    timeline = registry.timelines.get(name)
    if not timeline:
        registry.standing(name)  # raises, with the names that there are
        raise AssertionError("a rule stands without a timeline")
    found, last = [], 0
    for one in timeline:
        # a deleted rule is shown as it was, or, when that is no longer kept, in its newest wording
        last = one.activation.revision or last or max(registry.revisions[name])
        wording = registry.revision(name, last)
        rule = views.rule(wording, one.activation, one.since)
        found.append(api.RuleThen(rule=rule, action=one.action, by=one.principal, current=one is timeline[-1]))
    return answer(found[::-1])


async def list_some(service: Service, request: web.Request) -> web.Response:
    registry, after = service.registrar.registry, request.query.get("after", "")
    names = heapq.nsmallest(limit_of(request), (name for name in registry.rules if name > after))
    found = [(name, registry.rules[name]) for name in names]
    return answer(
        [views.rule(registry.revision(name, one.activation.revision), one.activation, one.since) for name, one in found]
    )


async def delete(service: Service, request: web.Request) -> web.Response:
    name = request.match_info["name"]
    (gone,) = await service.registrar.change_rules(
        lambda registry: rule_changes.delete(registry, [name], principal=PRINCIPAL)
    )
    return answer(_changed(service, gone))


def _changed(
    service: Service, change: rule_changes.RuleChange, warnings: Mapping[str, list[str]] | None = None
) -> api.Rule:
    timeline = service.registrar.registry.timelines.get(change.name)
    since = timeline[-1].since if timeline else 0
    shown = views.rule(change.revision, change.activation, since, change.change)
    return replace(shown, warnings=(warnings or {}).get(change.name, []))


AFTER = Query("after", "the next page: the last name of the one before", {"type": "string"})
REVISION = Query("revision", "which one; default the one before", {"type": "integer", "minimum": 1})

ROUTES = [
    Route("POST", "/v1/rules", apply, "Put rules in force, all or none", takes=api.NewRules, gives=list[api.Rule],
          errors=(400, 413)),
    Route("POST", "/v1/rules/check", check, "Say what putting rules in force would change and what is probably not "
          "meant; nothing changes", takes=api.NewRules, gives=list[api.Rule], errors=(400, 413)),
    Route("POST", "/v1/rules/prune", prune, "Put out of force what came from a file and is not in it any more",
          takes=api.NewRules, gives=list[api.Rule], errors=(400, 413)),
    Route("POST", "/v1/rules/{name}/enable", enable, "Let a rule fire again that was disabled", gives=api.Rule,
          errors=(404,)),
    Route("POST", "/v1/rules/{name}/disable", disable, "Keep a rule from firing, also when it is applied again",
          gives=api.Rule, errors=(404,)),
    Route("POST", "/v1/rules/{name}/rollback", rollback, "Put an earlier revision in force", gives=api.Rule,
          queries=(REVISION,), errors=(400, 404)),
    Route("GET", "/v1/rules/{name}/history", history, "List how a rule stood, newest first", gives=list[api.RuleThen],
          errors=(404,)),
    Route("GET", "/v1/rules", list_some, "List the rules there are, by name", gives=list[api.Rule],
          queries=(AFTER, LIMIT), errors=(400,)),
    Route("DELETE", "/v1/rules/{name}", delete, "Put a rule out of force; its history is kept",
          gives=api.Rule, errors=(404,)),
]  # fmt: skip
