"""/v1/rules: put rules in force, all of a file or none; list and delete them."""

from __future__ import annotations

import asyncio

from aiohttp import web

from upon import api
from upon.service import rule_changes, views
from upon.service.context import PRINCIPAL, Service
from upon.service.routing import Route, answer, read_body


async def apply(service: Service, request: web.Request) -> web.Response:
    from upon.streams.rules import rule_specs  # pulls in YAML and CEL: not for a start

    new = await read_body(request, api.NewRules)
    specs = await asyncio.to_thread(rule_specs, new.yaml, new.file)
    changes = await service.registrar.change_rules(
        lambda registry: rule_changes.apply(
            registry, specs, file=new.file, principal=PRINCIPAL, again=new.again, prune=new.prune
        )
    )
    return answer([_changed(service, one) for one in changes])


async def list_all(service: Service, _request: web.Request) -> web.Response:
    registry = service.registrar.registry
    found = sorted(registry.rules.items(), key=lambda item: (-item[1].since, item[0]))
    return answer(
        [views.rule(registry.revision(name, one.activation.revision), one.activation, one.since) for name, one in found]
    )


async def delete(service: Service, request: web.Request) -> web.Response:
    name = request.match_info["name"]
    (gone,) = await service.registrar.change_rules(
        lambda registry: rule_changes.delete(registry, [name], principal=PRINCIPAL)
    )
    return answer(_changed(service, gone))


def _changed(service: Service, change: rule_changes.RuleChange) -> api.Rule:
    timeline = service.registrar.registry.timelines.get(change.name)
    since = timeline[-1].since if timeline else 0
    return views.rule(change.revision, change.activation, since, change.change)


ROUTES = [
    Route("POST", "/v1/rules", apply, "Put rules in force, all or none", takes=api.NewRules, gives=list[api.Rule],
          errors=(400, 413)),
    Route("GET", "/v1/rules", list_all, "List the rules there are", gives=list[api.Rule]),
    Route("DELETE", "/v1/rules/{name}", delete, "Put a rule out of force; its history is kept",
          gives=api.Rule, errors=(404,)),
]  # fmt: skip
