"""/v1/functions: register versions of named functions, list them."""

from __future__ import annotations

from aiohttp import web

from upon import api
from upon.registry import split_function
from upon.service.context import PRINCIPAL, Service
from upon.service.rest import views
from upon.service.rest.routing import Route, answer, read_body


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


ROUTES = [
    Route("POST", "/v1/functions", register, "Register a version of a named function",
          takes=api.NewFunction, gives=api.Function, errors=(400, 413)),
    Route("GET", "/v1/functions", list_all, "List all versions of all functions", gives=list[api.Function]),
    Route("GET", "/v1/functions/{function}", show, "Show a function, name[@version]", gives=api.Function,
          errors=(404,)),
]  # fmt: skip
