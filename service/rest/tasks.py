"""/v1/tasks: what became of invocations; cancelling them, trying them again.

A reader sees what was accepted before it asked, and what was pushed before: where the store may be behind, the request
waits for it, shortly.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any, get_args

from aiohttp import web
from aiokafka import TopicPartition
from sqlalchemy import Row

from upon import api
from upon.errors import (
    Conflict,
    InputError,
    KafkaUnavailable,
    ServiceError,
    ServiceUnavailable,
    SiteNotFound,
    TaskNotFound,
)
from upon.ids import generation_id, task_of
from upon.messages import FINAL, InvocationBatch, Result, Status, decode
from upon.registry import split_function
from upon.service.again import CannotRetry, check_task, invocation_again
from upon.service.context import PRINCIPAL, Service
from upon.service.output import in_the_end, so_far
from upon.service.rest import views
from upon.service.rest.routing import (
    AFTER,
    LIMIT,
    SINCE,
    UNTIL,
    Query,
    Route,
    answer,
    flag_of,
    limit_of,
    moment_of,
    number_of,
    read_body,
)
from upon.service.store import queries

WAIT = 2.0
"""Seconds that a request waits for the store: for a task that is unknown to be as new as Kafka, for one without a
result to be as new as what was pushed."""
WAIT_LISTING = 0.5
"""The same for a listing."""
WAIT_OUTPUT = 20
"""Seconds that a request waits for a task to print something, at most."""
AT_ONCE = 500
"""Tasks that one request tries again or cancels."""
RESULT_BYTES, DETAILS_BYTES, DETAILED = 256 * 1024, 16 * 1024 * 1024, 50
"""A listing with details: the largest result, all of them together, and how many are read at a time."""


async def list_some(service: Service, request: web.Request) -> web.Response:
    wanted, limit = wanted_tasks(request), limit_of(request)
    details = flag_of(request, "details")
    await caught_up(service, WAIT_LISTING)
    rows = await service.store.read(queries.list_tasks, wanted, limit)
    if not details:
        usual = usual_times(service)
        return answer([views.listed_task(row, usual.get(row.id)) for row in rows])
    return answer(await _with_results(service, rows))


async def _with_results(service: Service, rows: Sequence[Row[Any]]) -> list[api.Task]:
    """Return tasks with results and output as far as those are small."""
    found: dict[str, Result] = {}
    room = DETAILS_BYTES
    for start in range(0, len(rows), DETAILED):
        ids = [row.id for row in rows[start : start + DETAILED]]
        some = await service.store.read(queries.get_small_results, ids, min(RESULT_BYTES, max(0, room // len(ids))))
        room -= sum(len(one.payload) + len(one.stdout) for one in some.values())
        found |= some
    usual = usual_times(service)
    return [views.detailed_task(row, found.get(row.id), usual.get(row.id)) for row in rows]


def usual_times(service: Service) -> dict[str, float]:
    """Return what the functions of stragglers usually take (s), by task."""
    sites = service.registrar.registry.sites.values()
    return {task_of(one.id)[0]: one.usual for site in sites for one in site.stragglers}


async def show(service: Service, request: web.Request) -> web.Response:
    row = await find(service, request.match_info["id"])
    history = await service.store.read(queries.get_generations, row.id) if row.generation else []
    printed = so_far(service.outputs.of(generation_id(row.id, row.generation)), 0, 0).text
    return answer(views.whole_task(row, history, printed))


async def output(service: Service, request: web.Request) -> web.Response:
    id, attempt, since = request.match_info["id"], number_of(request, "attempt"), number_of(request, "since")
    deadline = time.monotonic() + min(number_of(request, "wait"), WAIT_OUTPUT)
    with service.outputs.waiting(id) as news:
        while True:
            news.clear()
            row = await find(service, id)
            kept, ended = service.outputs.of(generation_id(id, row.generation)), row.status in FINAL
            if ended:
                stdout = views.stored(row.result, Result).stdout if row.result is not None else ""
                found = in_the_end(kept, attempt, since, stdout)
            else:
                found = so_far(kept, attempt, since)
            left = deadline - time.monotonic()
            if ended or found.text or left <= 0:
                return answer(api.TaskOutput(id=id, status=row.status, **found._asdict()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), left)


async def cancel(service: Service, request: web.Request) -> web.Response:
    row = await find(service, request.match_info["id"])
    if row.status in FINAL:
        raise Conflict(f"task {row.id} has {row.status} already: there is nothing to cancel")
    await (await service.submission.cancel(row.site, [generation_id(row.id, row.generation)]))
    return answer(api.Submitted(id=row.id), 202)


async def cancel_some(service: Service, request: web.Request) -> web.Response:
    choice = await read_body(request, api.TaskChoice)
    rows, after = await _chosen(service, choice, ("pending", "running"))
    refused = _unknown(choice, rows)
    at_site: dict[str, list[Row[Any]]] = {}
    for row in rows:
        if row.status in FINAL:
            refused.append(api.NotDealt(id=row.id, reason=f"it has {row.status} already"))
        else:
            at_site.setdefault(row.site, []).append(row)
    done: list[str] = []
    for site, some in at_site.items():
        try:
            asked = await service.submission.cancel(site, [generation_id(row.id, row.generation) for row in some])
        except SiteNotFound as error:
            refused += [api.NotDealt(id=row.id, reason=str(error)) for row in some]
            continue
        await asked
        done += [row.id for row in some]
    return answer(api.Dealt(ids=done, refused=refused, after=after), 202)


async def retry(service: Service, request: web.Request) -> web.Response:
    choice = await read_body(request, api.TaskChoice)
    rows, after = await _chosen(service, choice, (choice.status or "failed",))
    refused = _unknown(choice, rows)
    places: dict[tuple[TopicPartition, int], list[Row[Any]]] = {}
    for row in rows:
        try:
            check_task(row)
        except CannotRetry as error:
            refused.append(api.NotDealt(id=row.id, reason=str(error)))
        else:
            topic = service.topics.invocations(row.site)
            places.setdefault((TopicPartition(topic, row.partition), row.record_offset), []).append(row)
    records = await service.places.read(set(places))
    acks: list[tuple[str, asyncio.Future[Any]]] = []
    for place, some in places.items():
        for row in some:
            try:
                if place not in records:
                    raise CannotRetry("its arguments are no longer in Kafka (retention): submit it again")
                batch = decode(records[place].value or b"", InvocationBatch)
                one = invocation_again(row, batch)
                acks.append((row.id, await service.submission.again(row.site, batch.group, PRINCIPAL, one)))
            except (ServiceError, InputError) as error:
                refused.append(api.NotDealt(id=row.id, reason=str(error)))
    for _, ack in acks:
        await ack
    return answer(api.Dealt(ids=[id for id, _ in acks], refused=refused, after=after), 202)


async def _chosen(
    service: Service, choice: api.TaskChoice, statuses: Sequence[Status]
) -> tuple[list[Row[Any]], str | None]:
    """Return the rows of the chosen tasks, some at a time, and behind which to go on. Raises InputError."""
    filters = (choice.function, choice.rule, choice.group, choice.site, choice.subject, choice.since, choice.until)
    some = any(one is not None for one in filters)
    if not (choice.ids is not None or some or choice.all):
        raise InputError("choose tasks: ids, function, rule, group, site, subject, since, until, or all")
    if choice.ids is not None and (some or choice.all or len(choice.ids) > AT_ONCE):
        raise InputError(f"ids: at most {AT_ONCE}, and without a filter beside them")
    await caught_up(service, WAIT)
    if choice.ids is not None:
        return list(await service.store.read(queries.find_tasks, choice.ids)), None
    function, version = split_function(choice.function) if choice.function is not None else (None, None)
    wanted = queries.TaskFilter(
        rule=choice.rule,
        function=function,
        version=version,
        site=choice.site,
        group=choice.group,
        subject=choice.subject,
        since=moment_of("since", choice.since),
        until=moment_of("until", choice.until),
        after=choice.after,
        statuses=tuple(statuses),
    )
    rows = list(await service.store.read(queries.list_tasks, wanted, AT_ONCE))
    return rows, rows[-1].id if len(rows) == AT_ONCE else None


def _unknown(choice: api.TaskChoice, rows: Sequence[Row[Any]]) -> list[api.NotDealt]:
    there = {row.id for row in rows}
    return [api.NotDealt(id=id, reason="no task has this id") for id in choice.ids or () if id not in there]


async def find(service: Service, id: str) -> Row[Any]:
    """Return a task's row; wait for the store if it has none yet, or not yet a result that a client may have by now.

    Raises:
        TaskNotFound: no such task.
        ServiceUnavailable: it cannot be told, for the store is behind Kafka, or Kafka is away.
    """
    row = await service.store.read(queries.get_task, id)
    if row is not None and row.status not in FINAL and await service.projector.reach(service.hub.pushed, WAIT):
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
    return queries.TaskFilter(
        statuses=None if status is None else (status,),
        rule=query.get("rule"),
        function=function,
        version=version,
        site=query.get("site"),
        group=query.get("group"),
        subject=query.get("subject"),
        since=moment_of("since", query.get("since")),
        until=moment_of("until", query.get("until")),
        after=query.get("after"),
    )


_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "minimum": 0, "default": 0}

ROUTES = [
    Route("GET", "/v1/tasks", list_some, "List the newest tasks", gives=list[api.Task], errors=(400,),
          queries=(Query("status", "only tasks in this state", {"type": "string", "enum": list(get_args(Status))}),
                   Query("rule", "only tasks that this rule fired", _TEXT),
                   Query("function", "only tasks of this function, name[@version]", _TEXT),
                   Query("site", "only tasks at this site", _TEXT),
                   Query("group", "only tasks of this Executor", _TEXT),
                   Query("subject", "only tasks whose event has this subject", _TEXT),
                   Query("details", "with results and output, where they are small", {"type": "boolean"}),
                   SINCE, UNTIL, AFTER, LIMIT)),
    Route("POST", "/v1/tasks/retry", retry, "Do tasks that failed once more; what became of them is kept",
          takes=api.TaskChoice, gives=api.Dealt, status=202, errors=(400, 503)),
    Route("POST", "/v1/tasks/cancel", cancel_some, "Cancel tasks, queued or running",
          takes=api.TaskChoice, gives=api.Dealt, status=202, errors=(400, 503)),
    Route("GET", "/v1/tasks/{id}", show, "Show a task: result or error, and when it passed each hop",
          gives=api.Task, errors=(404, 503)),
    Route("GET", "/v1/tasks/{id}/output", output, "What a task has printed so far; ask again with what it says",
          gives=api.TaskOutput, errors=(400, 404, 503),
          queries=(Query("attempt", "of which something is known already", _NUMBER),
                   Query("since", "up to which place that is", _NUMBER),
                   Query("wait", "seconds to wait for something new, or the task's end, at most 20", _NUMBER))),
    Route("POST", "/v1/tasks/{id}/cancel", cancel, "Cancel a task, queued or running", gives=api.Submitted,
          status=202, errors=(404, 409, 503)),
]  # fmt: skip
