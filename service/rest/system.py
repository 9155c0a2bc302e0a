"""/v1/sites, /v1/status, /v1/summary, /healthz, /openapi.json: what there is and how it does."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aiohttp import web

import upon
from upon import api
from upon.service.context import PRINCIPAL, Service
from upon.service.rest import views
from upon.service.rest.routing import Route, answer, read_body
from upon.service.retention import in_words
from upon.service.store import queries

NAMED = 3
"""Records that cannot be read which are named one by one."""


def all_sites(service: Service) -> list[api.Site]:
    """Return the sites as seen now, by name, without those that were not heard of for long."""
    now, registry, keep = time.time_ns(), service.registrar.registry, service.settings.keep_sites
    names = [name for name in sorted(registry.sites) if not keep or now - registry.heard[name] <= keep * 1e9]
    return [views.site(registry.sites[name], registry.is_up(name, now)) for name in names]


def unreadable(found: Mapping[str, str]) -> list[str]:
    """Return a line about records of registry and sites that cannot be read, by key; none if there are none."""
    if not found:
        return []
    named = "; ".join(f"{key} ({why})" for key, why in list(found.items())[:NAMED])
    more = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    what = "1 record of the registry cannot be read and counts" if len(found) == 1 else (
        f"{len(found):,} records of the registry cannot be read and count")  # fmt: skip
    return [f"{what} for nothing: {named}{more}. Register or apply again what is missing"]


async def drain(service: Service, request: web.Request) -> web.Response:
    asked = await read_body(request, api.Drain)
    site = request.match_info["site"]
    await service.submission.drain(site, asked.managers, on=asked.on, principal=PRINCIPAL)
    return answer(asked, 202)


async def list_sites(service: Service, _request: web.Request) -> web.Response:
    return answer(all_sites(service))


async def summary(service: Service, _request: web.Request) -> web.Response:
    counts = await service.store.read(queries.count_unusual)
    amiss = [note for note in (service.store.note, service.freeing.note) if note]
    return answer(
        api.Summary(
            tasks={status: counts.get(status, 0) for status in ("pending", "running", "failed", "cancelled")},
            deadletters=await service.store.read(queries.count_deadletters),
            notes=[*amiss, *unreadable(service.registrar.unreadable)],
            retention=in_words(service.settings),
            store=await service.freeing.use(),
        )
    )


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
    Route("POST", "/v1/sites/{site}/drain", drain, "Start nothing more at a site, or go on; or have managers end",
          takes=api.Drain, gives=api.Drain, status=202, errors=(400, 404)),
    Route("GET", "/v1/status", status, "Show how the parts do", gives=api.SystemStatus),
    Route("GET", "/v1/summary", summary, "Count what somebody should look at", gives=api.Summary, errors=(503,)),
    Route("GET", "/healthz", health, "Tell that the service answers", gives=dict[str, str], open=True),
]  # fmt: skip
