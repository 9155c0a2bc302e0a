"""The OpenAPI 3.1 description of the REST API, made from the route table and the bodies of `upon.api`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

import upon
from upon import api
from upon.service.rest.routing import Route

_REFERENCE = "#/components/schemas/{name}"


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the description of `routes` as plain data."""
    kinds = [kind for route in routes for kind in (route.takes, route.gives) if kind is not None]
    schemas, components = msgspec.json.schema_components([*kinds, api.Problem], ref_template=_REFERENCE)
    *of_kinds, problem = schemas
    waiting = iter(of_kinds)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        takes = next(waiting) if route.takes is not None else None
        gives = next(waiting) if route.gives is not None else None
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, takes, gives, problem)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Upon",
            "version": upon.__version__,
            "description": (api.__doc__ or "").strip(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(
    route: Route, takes: dict[str, Any] | None, gives: dict[str, Any] | None, problem: dict[str, Any]
) -> dict[str, Any]:
    said = {"description": HTTPStatus(route.status).phrase}
    responses: dict[str, Any] = {str(route.status): said | (_json(gives) if gives is not None else {})}
    for status in (*route.errors, *(() if route.open else (401,)), 500):
        responses[str(status)] = {"description": HTTPStatus(status).phrase, **_json(problem)}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": _operation_id(route),
        "responses": responses,
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [
        {"name": query.name, "in": "query", "description": query.description, "schema": query.schema}
        for query in route.queries
    ]
    if parameters:
        operation["parameters"] = parameters
    if takes is not None:
        operation["requestBody"] = {"required": True, **_json(takes)}
    if route.open:
        operation["security"] = []
    return operation


def _operation_id(route: Route) -> str:
    words = re.findall(r"\w+", route.path.removeprefix("/v1").replace(".json", ""))
    return "_".join([route.method.lower(), *words])


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
