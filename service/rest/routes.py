"""All routes of the service, in one table: what aiohttp serves is what /openapi.json describes."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from upon.service.context import Service
from upon.service.rest import deadletters as routes_deadletters
from upon.service.rest import events as routes_events
from upon.service.rest import functions as routes_functions
from upon.service.rest import invocations as routes_invocations
from upon.service.rest import payloads as routes_payloads
from upon.service.rest import rules as routes_rules
from upon.service.rest import stream as routes_stream
from upon.service.rest import system as routes_system
from upon.service.rest import tasks as routes_tasks
from upon.service.rest.openapi import document
from upon.service.rest.routing import Route, answer


async def describe(_service: Service, _request: web.Request) -> web.Response:
    return answer(document(ROUTES))


ROUTES: list[Route] = [
    *routes_functions.ROUTES,
    *routes_rules.ROUTES,
    *routes_invocations.ROUTES,
    *routes_tasks.ROUTES,
    *routes_events.ROUTES,
    *routes_deadletters.ROUTES,
    *routes_payloads.ROUTES,
    *routes_stream.ROUTES,
    *routes_system.ROUTES,
    Route("GET", "/openapi.json", describe, "Describe this API", gives=dict[str, Any], open=True),
]

OPEN_PATHS = frozenset(route.path for route in ROUTES if route.open)


def add_to(app: web.Application) -> None:
    """Serve all routes."""
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.bound())
