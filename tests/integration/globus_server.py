"""A local server that speaks the routes of Globus Auth and Globus Transfer that the SDK uses; started as a process.

python globus_server.py            prints its port; runs until its standard input ends

POST /v2/oauth2/token                               a token
GET  /v0.10/task_list                               filter, orderby, limit, offset, total
GET  /v0.10/task/<id>                               one task
GET  /v0.10/task/<id>/event_list                    with the success that repeats itself
GET  /v0.10/task/<id>/successful_transfers          marker, next_marker; refused while the task runs
GET  /v0.10/submission_id, POST /v0.10/transfer     submitting
POST /test/tasks                                    put tasks there as they shall be (JSON list, merged by task_id)
POST /test/faults                                   {"count": n, "status": 503}: so many requests fail
GET  /test/requests                                 what was asked so far
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

tasks: dict[str, dict[str, Any]] = {}
faults = {"count": 0, "status": 503}
requests: list[str] = []
MARKERS = 2  # files in a page of successful transfers


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@web.middleware
async def checks(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path.startswith("/test/"):
        return await handler(request)
    requests.append(str(request.rel_url))
    if request.path.startswith("/v0.10/"):
        if faults["count"] > 0:
            faults["count"] -= 1
            return refusal(faults["status"], "ServiceUnavailable")
        if request.headers.get("Authorization") != "Bearer local-token":
            return refusal(401, "AuthenticationFailed")
    return await handler(request)


def refusal(status: int, code: str) -> web.Response:
    return web.json_response({"code": code, "message": code, "request_id": "r", "resource": "/"}, status=status)


async def token(request: web.Request) -> web.Response:
    form = await request.post()
    if request.headers.get("Authorization", "") == "" or form.get("grant_type") != "client_credentials":
        return web.json_response({"error": "invalid_client"}, status=401)
    return web.json_response(
        {
            "access_token": "local-token",
            "resource_server": "transfer.api.globus.org",
            "scope": "urn:globus:auth:scope:transfer.api.globus.org:all",
            "expires_in": 172800,
            "token_type": "Bearer",
            "other_tokens": [],
        }
    )


def matches(task: dict[str, Any], text: str) -> bool:
    for clause in filter(None, text.split("/")):
        name, _, value = clause.partition(":")
        if name == "completion_time":
            begin, _, end = value.partition(",")
            completed = task.get("completion_time")
            if (
                not completed
                or (begin and moment(completed) < moment(begin))
                or (end and moment(completed) > moment(end))
            ):
                return False
        elif str(task.get(name)) not in value.split(","):
            return False
    return True


async def task_list(request: web.Request) -> web.Response:
    query = request.query
    found = [task for task in tasks.values() if matches(task, query.get("filter", ""))]
    field, _, way = query.get("orderby", "request_time DESC").partition(" ")
    found.sort(key=lambda task: (task.get(field) or "", task["task_id"]), reverse=way == "DESC")
    offset, limit = int(query.get("offset", 0)), int(query.get("limit", 10))
    page = found[offset : offset + limit]
    return web.json_response(
        {
            "DATA_TYPE": "task_list",
            "DATA": page,
            "length": len(page),
            "offset": offset,
            "limit": limit,
            "total": len(found),
        }
    )


async def one_task(request: web.Request) -> web.Response:
    task = tasks.get(request.match_info["id"])
    return web.json_response(task) if task else refusal(404, "TaskNotFound")


async def event_list(request: web.Request) -> web.Response:
    success = {"DATA_TYPE": "event", "code": "SUCCEEDED", "is_error": False, "time": now(), "description": "succeeded"}
    return web.json_response({"DATA_TYPE": "event_list", "DATA": [success] * 3, "total": 3, "offset": 0, "limit": 10})


async def successful_transfers(request: web.Request) -> web.Response:
    task = tasks.get(request.match_info["id"])
    if task is None:
        return refusal(404, "TaskNotFound")
    if task["status"] not in ("SUCCEEDED", "FAILED"):
        return refusal(400, "BadRequest")
    begin = int(request.query.get("marker", 0))
    files = [
        {"DATA_TYPE": "successful_transfer", "source_path": f"/from/{n}", "destination_path": f"/to/{n}"}
        for n in range(int(task.get("files_transferred") or 0))
    ]
    page, end = files[begin : begin + MARKERS], begin + MARKERS
    body: dict[str, Any] = {"DATA_TYPE": "successful_transfers", "marker": begin, "DATA": page}
    return web.json_response({**body, "next_marker": str(end) if end < len(files) else None})


async def submission_id(request: web.Request) -> web.Response:
    return web.json_response({"value": str(uuid.uuid4())})


async def transfer(request: web.Request) -> web.Response:
    await request.json()
    task = {"task_id": str(uuid.uuid4()), "type": "TRANSFER", "status": "ACTIVE", "request_time": now()}
    tasks[task["task_id"]] = {**task, "completion_time": None}
    return web.json_response({"code": "Accepted", "task_id": task["task_id"]}, status=202)


async def put_tasks(request: web.Request) -> web.Response:
    for task in await request.json():
        old = tasks.get(task["task_id"], {"type": "TRANSFER", "request_time": now(), "completion_time": None})
        tasks[task["task_id"]] = {**old, **task}
    return web.json_response(len(tasks))


async def put_faults(request: web.Request) -> web.Response:
    faults.update(await request.json())
    return web.json_response({})


async def get_requests(request: web.Request) -> web.Response:
    return web.json_response({"requests": requests, "faults": faults["count"]})


async def serve() -> None:
    app = web.Application(middlewares=[checks])
    app.add_routes(
        [
            web.post("/v2/oauth2/token", token),
            web.get("/v0.10/task_list", task_list),
            web.get("/v0.10/task/{id}", one_task),
            web.get("/v0.10/task/{id}/event_list", event_list),
            web.get("/v0.10/task/{id}/successful_transfers", successful_transfers),
            web.get("/v0.10/submission_id", submission_id),
            web.post("/v0.10/transfer", transfer),
            web.post("/test/tasks", put_tasks),
            web.post("/test/faults", put_faults),
            web.get("/test/requests", get_requests),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    print(site._server.sockets[0].getsockname()[1], flush=True)  # type: ignore[attr-defined]
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
