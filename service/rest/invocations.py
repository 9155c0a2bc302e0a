"""/v1/invocations: run a registered function once, with plain arguments."""

from __future__ import annotations

from aiohttp import web

from upon import api
from upon.errors import InputError
from upon.ids import new_id
from upon.messages import Invocation
from upon.serialize import dumps_plain
from upon.service.context import PRINCIPAL, Service
from upon.service.rest.routing import Route, answer, read_body, while_connected
from upon.store.reference import is_reference


async def invoke(service: Service, request: web.Request) -> web.Response:
    new = await read_body(request, api.NewInvocation)
    if new.payload and not is_reference(new.payload):
        raise InputError("payload: not a reference to a store; give args and kwargs instead")
    invocation = Invocation(
        id=new_id() if new.id is None else new.id,
        code="",
        function=new.function,
        payload=new.payload or dumps_plain([new.args, new.kwargs]),  # the form of `upon.serialize.pack_call`
        timeout=new.timeout,
        resources=new.resources,
        priority=new.priority,
        limits=new.limits,
        memoize=new.memoize,
    )

    async def submit() -> None:
        await (await service.submission.submit(new.site, new.group, PRINCIPAL, [invocation]))

    await while_connected(request, submit())
    return answer(api.Submitted(id=invocation.id), 202)


ROUTES = [
    Route("POST", "/v1/invocations", invoke, "Run a registered function once; answered when Kafka has it",
          takes=api.NewInvocation, gives=api.Submitted, status=202, errors=(400, 404, 413)),
]  # fmt: skip
