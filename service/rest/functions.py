"""/v1/functions: register versions of named functions, list and delete them."""

from __future__ import annotations

import time

from aiohttp import web

from upon import api
from upon.messages import FunctionRecord
from upon.registry import Registry, split_function
from upon.service.context import PRINCIPAL, Service
from upon.service.function_changes import deletion, users
from upon.service.rest import views
from upon.service.rest.routing import Query, Route, answer, flag_of, read_body


async def register(service: Service, request: web.Request) -> web.Response:
    new = await read_body(request, api.NewFunction)
    record = await service.registrar.add_function(
        new.name,
        new.body,
        python=new.python,
        description=new.description,
        source=new.source,
        principal=PRINCIPAL,
    )
    return answer(views.function(record))


async def list_all(service: Service, _request: web.Request) -> web.Response:
    records = [record for versions in service.registrar.registry.functions.values() for record in versions.values()]
    records.sort(key=lambda record: (record.created, record.name, record.version), reverse=True)
    return answer([views.function(record) for record in records])


async def show(service: Service, request: web.Request) -> web.Response:
    name, version = split_function(request.match_info["function"])
    return answer(views.function(service.registrar.registry.function(name, version)))


async def versions(service: Service, request: web.Request) -> web.Response:
    return answer(_versions(service.registrar.registry, request.match_info["name"]))


async def delete(service: Service, request: web.Request) -> web.Response:
    function, force = request.match_info["function"], flag_of(request, "force")
    before: list[api.FunctionVersion] = []

    def planned(registry: Registry) -> list[FunctionRecord]:
        gone = deletion(registry, function, force=force, principal=PRINCIPAL, now=time.time_ns())
        there = {one.version: one.rules for one in _versions(registry, gone[0].name)}
        before.extend(views.function_version(one, False, there[one.version]) for one in gone)
        return gone

    await service.registrar.delete_functions(planned)
    return answer(before)


def _versions(registry: Registry, name: str) -> list[api.FunctionVersion]:
    """Return all versions that there ever were, newest first. Raises FunctionNotFound: there never was one."""
    there, deleted = registry.functions.get(name, {}), registry.deleted.get(name, {})
    if not deleted:
        registry.function(name)
    used = users(registry, name)
    return [
        views.function_version(record, number == max(there, default=0), used.get(number, ()))
        for number, record in sorted((there | deleted).items(), reverse=True)
    ]


ROUTES = [
    Route("POST", "/v1/functions", register, "Register a version of a named function",
          takes=api.NewFunction, gives=api.Function, errors=(400, 413)),
    Route("GET", "/v1/functions", list_all, "List all versions of all functions", gives=list[api.Function]),
    Route("GET", "/v1/functions/{function}", show, "Show a function, name[@version]", gives=api.Function,
          errors=(404,)),
    Route("GET", "/v1/functions/{name}/versions", versions, "List all versions of a function, deleted ones too",
          gives=list[api.FunctionVersion], errors=(404,)),
    Route("DELETE", "/v1/functions/{function}", delete, "Delete a version, or (a name alone) all; not what rules run",
          gives=list[api.FunctionVersion], errors=(400, 404, 409),
          queries=(Query("force", "also what rules run", {"type": "boolean"}),)),
]  # fmt: skip
