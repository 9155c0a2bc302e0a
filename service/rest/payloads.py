"""/v1/payloads: the store for clients that do not see its folder. Content passes through in pieces, unread.

A client makes and reads content itself (`upon.store`); what it sends and gets here is what lies in a file.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from upon import api
from upon.errors import InputError, StoreError
from upon.service.context import Service
from upon.service.rest.routing import Route, answer
from upon.store.files import FileStore
from upon.store.reference import is_key

PIECE = 1024 * 1024
"""Bytes of content that are in memory, of each request."""
PIECE_WITHIN = 60.0
"""Seconds that a client has to send some of it, or to take some."""


async def use(service: Service, _request: web.Request) -> web.Response:
    if (found := await service.freeing.use()) is None:
        raise StoreError(f"there is no store: {service.freeing.note or 'the service is about to make it'}")
    return answer(found)


async def get(service: Service, request: web.Request) -> web.StreamResponse:
    store, key = await _store_and_key(service, request)
    with store.get(key) as file:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = await asyncio.to_thread(file.seek, 0, 2)
        await asyncio.to_thread(file.seek, 0)
        await response.prepare(request)
        while piece := await asyncio.to_thread(file.read, PIECE):
            async with asyncio.timeout(PIECE_WITHIN):
                await response.write(piece)
        await response.write_eof()
    return response


async def put(service: Service, request: web.Request) -> web.Response:
    store, key = await _store_and_key(service, request)
    part = await asyncio.to_thread(store.put, key)
    try:
        pieces = request.content.iter_chunked(PIECE)
        while True:
            async with asyncio.timeout(PIECE_WITHIN):
                piece = await anext(pieces, b"")
            if not piece:
                break
            await asyncio.to_thread(part.write, piece)
        if request.content_length is not None and request.content.total_bytes != request.content_length:
            raise InputError(f"body: {request.content.total_bytes:,} of {request.content_length:,} bytes came")
        await asyncio.to_thread(part.commit)
    except TimeoutError:
        part.discard()
        raise InputError(f"body: nothing of it arrived for {PIECE_WITHIN:.0f} s") from None
    except BaseException:
        part.discard()
        raise
    return answer(api.Submitted(id=key), 201)


async def delete(service: Service, request: web.Request) -> web.Response:
    store, key = await _store_and_key(service, request)
    await asyncio.to_thread(store.delete, key)
    return answer(api.Submitted(id=key))


async def _store_and_key(service: Service, request: web.Request) -> tuple[FileStore, str]:
    key = request.match_info["key"]
    if not is_key(key):
        raise InputError(f"{key[:100]!r} is no key of a store")
    return await asyncio.to_thread(FileStore, service.settings.store_folder), key


ROUTES = [
    Route("GET", "/v1/payloads", use, "Tell which store there is and how much it holds", gives=api.StoreUse,
          errors=(503,)),
    Route("GET", "/v1/payloads/{key}", get, "Get the content that a reference names, as it lies there",
          errors=(400, 503)),
    Route("PUT", "/v1/payloads/{key}", put, "Put content into the store", gives=api.Submitted, status=201,
          errors=(400, 503)),
    Route("DELETE", "/v1/payloads/{key}", delete, "Delete content that its client has taken", gives=api.Submitted,
          errors=(400, 503)),
]  # fmt: skip
