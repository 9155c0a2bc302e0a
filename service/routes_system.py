"""/v1/sites, /v1/deadletters, /v1/status, /healthz, /openapi.json: what there is and how it does."""

from __future__ import annotations

import time

from aiohttp import web

import upon
from upon import api
from upon.service import queries, views
from upon.service.context import Service
from upon.service.routes_tasks import WAIT_LISTING, caught_up
from upon.service.routing import LIMIT, Route, answer, limit_of


def all_sites(service: Service) -> list[api.Site]:
    """Return the sites as seen now, by name."""
    now, registry = time.time_ns(), service.registrar.registry
    return [views.site(registry.sites[name], registry.is_up(name, now)) for name in sorted(registry.sites)]


async def list_sites(service: Service, _request: web.Request) -> web.Response:
    return answer(all_sites(service))


async def list_deadletters(service: Service, request: web.Request) -> web.Response:
    limit = limit_of(request)
    await caught_up(service, WAIT_LISTING)
    found = await service.store.read(queries.list_deadletters, limit)
    return answer([views.dead_letter(record) for record in found])


async def status(service: Service, _request: web.Request) -> web.Response:
    registry = service.registrar.registry
    return answer(
        api.SystemStatus(
            kafka=service.settings.need_kafka(),
            version=upon.__version__,
            sites=all_sites(service),
            lag=await service.lag.run(registry.sites),
            rules=len(registry.rules),
            functions=len(registry.functions),
        )
    )


async def health(_service: Service, _request: web.Request) -> web.Response:
    return answer({"status": "ok"})


ROUTES = [
    Route("GET", "/v1/sites", list_sites, "List the sites and what runs there", gives=list[api.Site]),
    Route("GET", "/v1/deadletters", list_deadletters, "List the newest dead letters",
          gives=list[api.DeadLetterView], queries=(LIMIT,), errors=(400,)),
    Route("GET", "/v1/status", status, "Show how the parts do", gives=api.SystemStatus),
    Route("GET", "/healthz", health, "Tell that the service answers", gives=dict[str, str], open=True),
]  # fmt: skip
