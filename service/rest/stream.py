"""/v1/stream: the WebSocket of Executors and watchers."""

from __future__ import annotations

from aiohttp import web

from upon.messages import MAX_RECORD
from upon.service.connection import Connection
from upon.service.context import PRINCIPAL, Service
from upon.service.rest.routing import Route

HEARTBEAT = 20.0
"""Seconds between pings: a client that has vanished is noticed after half as long again."""


async def stream(service: Service, request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT, compress=False, max_msg_size=MAX_RECORD)
    await socket.prepare(request)
    connection = Connection(service, socket, PRINCIPAL)
    service.connections.add(connection)
    try:
        await connection.run()
    finally:
        service.connections.discard(connection)
    return socket


ROUTES = [
    Route("GET", "/v1/stream", stream, "WebSocket: frames of upon.api in MessagePack, FromClient up, FromService down",
          status=101, errors=(400,)),
]  # fmt: skip
