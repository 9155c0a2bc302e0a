"""/v1/tasks: what became of invocations; cancelling them.

A reader sees what was accepted before it asked: where the store may be behind, the request waits for it, shortly.
"""

from __future__ import annotations

from typing import Any, get_args

from aiohttp import web
from sqlalchemy import Row

from upon import api
from upon.errors import Conflict, InputError, KafkaUnavailable, ServiceUnavailable, TaskNotFound
from upon.messages import FINAL, Status
from upon.registry import split_function
from upon.service import queries, views
from upon.service.context import Service
from upon.service.routing import LIMIT, Query, Route, answer, limit_of

WAIT = 2.0
"""Seconds that a request for an unknown task waits for the store to be as new as Kafka."""
WAIT_LISTING = 0.5
"""The same for a listing."""


async def list_some(service: Service, request: web.Request) -> web.Response:
    wanted, limit = wanted_tasks(request), limit_of(request)
    await caught_up(service, WAIT_LISTING)
    rows = await service.store.read(queries.list_tasks, wanted, limit)
    usual = usual_times(service)
    return answer([views.listed_task(row, usual.get(row.id)) for row in rows])


def usual_times(service: Service) -> dict[str, float]:
    """Return what the functions of stragglers usually take (s), by task."""
    sites = service.registrar.registry.sites.values()
    return {one.id: one.usual for site in sites for one in site.stragglers}


async def show(service: Service, request: web.Request) -> web.Response:
    return answer(views.whole_task(await find(service, request.match_info["id"])))


async def cancel(service: Service, request: web.Request) -> web.Response:
    row = await find(service, request.match_info["id"])
    if row.status in FINAL:
        raise Conflict(f"task {row.id} has {row.status} already: there is nothing to cancel")
    await (await service.submission.cancel(row.site, [row.id]))
    return answer(api.Submitted(id=row.id), 202)


async def find(service: Service, id: str) -> Row[Any]:
    """Return a task's row; wait for the store if it has none yet.

    Raises:
        TaskNotFound: no such task.
        ServiceUnavailable: it cannot be told, for the store is behind Kafka, or Kafka is away.
    """
    row = await service.store.read(queries.get_task, id)
    if row is None:
        new = await caught_up(service, WAIT)
        row = await service.store.read(queries.get_task, id)
        if row is None and not new:
            raise ServiceUnavailable(
                f"task {id!r} is not in the task store, which is behind Kafka: ask again; `upon status` shows the lag"
            )
    if row is None:
        raise TaskNotFound(f"no task has the id {id!r}; `upon tasks list` shows the newest")
    return row


async def caught_up(service: Service, timeout: float) -> bool:
    """Wait until the store is as new as Kafka is now; False if `timeout` s were not enough, or Kafka is away."""
    await service.projector.add_sites(set(service.registrar.registry.sites))
    try:
        ends = await service.ends.ends(service.projector.partitions(), timeout)
    except KafkaUnavailable:
        return False
    return await service.projector.reach(ends, timeout)


def wanted_tasks(request: web.Request) -> queries.TaskFilter:
    """Return the filter of a listing. Raises InputError."""
    query = request.query
    status = query.get("status")
    if status is not None and status not in get_args(Status):
        raise InputError(f"status: one of {', '.join(get_args(Status))}, not {status!r}")
    function, version = query.get("function"), None
    if function is not None:
        function, version = split_function(function)
    return queries.TaskFilter(status, query.get("rule"), function, version, query.get("site"))


_TEXT = {"type": "string"}

ROUTES = [
    Route("GET", "/v1/tasks", list_some, "List the newest tasks", gives=list[api.Task], errors=(400,),
          queries=(Query("status", "only tasks in this state", {"type": "string", "enum": list(get_args(Status))}),
                   Query("rule", "only tasks that this rule fired", _TEXT),
                   Query("function", "only tasks of this function, name[@version]", _TEXT),
                   Query("site", "only tasks at this site", _TEXT),
                   LIMIT)),
    Route("GET", "/v1/tasks/{id}", show, "Show a task: result or error, and when it passed each hop",
          gives=api.Task, errors=(404, 503)),
    Route("POST", "/v1/tasks/{id}/cancel", cancel, "Cancel a task, queued or running", gives=api.Submitted,
          status=202, errors=(404, 409, 503)),
]  # fmt: skip
