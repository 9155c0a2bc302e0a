"""/v1/rules: put rules in force, all of a file or none; list and delete them."""

from __future__ import annotations

import asyncio

from aiohttp import web

from upon import api
from upon.service import views
from upon.service.context import PRINCIPAL, Service
from upon.service.routing import Route, answer, read_body


async def apply(service: Service, request: web.Request) -> web.Response:
    from upon.streams.rules import parse_rules  # pulls in YAML and CEL: not for a start

    new = await read_body(request, api.NewRules)
    rules = await asyncio.to_thread(parse_rules, new.yaml, new.file)
    records = await service.registrar.apply_rules(rules, file=new.file, principal=PRINCIPAL)
    return answer([views.rule(record) for record in records])


async def list_all(service: Service, _request: web.Request) -> web.Response:
    records = sorted(service.registrar.registry.rules.values(), key=lambda r: (r.created, r.name), reverse=True)
    return answer([views.rule(record) for record in records])


async def delete(service: Service, request: web.Request) -> web.Response:
    return answer(views.rule(await service.registrar.delete_rule(request.match_info["name"], PRINCIPAL)))


ROUTES = [
    Route("POST", "/v1/rules", apply, "Put rules in force, all or none", takes=api.NewRules, gives=list[api.Rule],
          errors=(400, 413)),
    Route("GET", "/v1/rules", list_all, "List the rules in force", gives=list[api.Rule]),
    Route("DELETE", "/v1/rules/{name}", delete, "Put a rule out of force; its version is not used again",
          gives=api.Rule, errors=(404,)),
]  # fmt: skip
