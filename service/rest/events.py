"""/v1/events: publish CloudEvents, one or a list; list those of the past."""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import Any

import msgspec
from aiohttp import web

from upon import api
from upon.errors import EventError, PayloadTooLarge
from upon.events import Event, from_dict, write_record
from upon.kafka.batches import Entry
from upon.kafka.forms import EVENTS
from upon.messages import MAX_PAYLOAD
from upon.portions import portions
from upon.service.context import Service
from upon.service.past_events import EventFilter
from upon.service.rest.routing import (
    LIMIT,
    SINCE,
    UNTIL,
    Query,
    Route,
    answer,
    decoded,
    limit_of,
    moment_of,
    read_bytes,
    while_connected,
)

SLICE = 64 * 1024
"""Bytes of events that are read, or handed over, before other requests have their turn: some 10 ms of work."""


async def publish(service: Service, request: web.Request) -> web.Response:
    ids, entries = await read_entries(await read_bytes(request))

    async def write() -> None:
        topic, outbox = service.topics.events, service.outbox
        acks: list[asyncio.Future[None]] = []
        for some in portions(entries, attrgetter("size"), SLICE):
            pairs = [(await outbox.partition_lane(topic, EVENTS, entry.key), entry) for entry in some]
            acks.append(await outbox.send_all(pairs))
            await asyncio.sleep(0)
        await asyncio.gather(*acks)

    await while_connected(request, write())
    return answer(api.Published(ids=ids), 202)


async def read_entries(body: bytes) -> tuple[list[str], list[Entry]]:
    """Return the ids of the events of a body, and what Kafka shall have; other requests are served in between.

    Raises:
        InputError: the body is not JSON.
        EventError: one is no event; the message names index and attribute. Or as `entry_of`.
        PayloadTooLarge: as `entry_of`.
    """
    elements = decoded(body, list[msgspec.Raw]) if body.lstrip()[:1] == b"[" else None
    if elements is None:
        event = from_dict(decoded(body, Any))
        return [event.id], [entry_of(event)]
    ids, entries = [], []
    since = 0
    for index, raw in enumerate(elements):
        try:
            event = from_dict(decoded(raw, Any))
            entries.append(entry_of(event))
        except EventError as error:
            raise EventError(f"[{index}]: {error}") from error
        ids.append(event.id)
        since += len(memoryview(raw))
        if since >= SLICE:
            since = 0
            await asyncio.sleep(0)
    return ids, entries


def entry_of(event: Event) -> Entry:
    """Return an event as it waits for Kafka.

    Raises:
        PayloadTooLarge: it does not fit into a record.
        EventError: its data is no JSON.
    """
    body, _ = write_record([event])
    if len(body) > MAX_PAYLOAD:
        raise PayloadTooLarge(f"event {event.id}: {len(body):,} bytes, the limit is {MAX_PAYLOAD:,}")
    return Entry(body, key=None if event.key is None else event.key.encode())


async def list_past(service: Service, request: web.Request) -> web.Response:
    query, limit = request.query, limit_of(request)
    wanted = EventFilter(
        types=tuple(query.getall("type", ())),
        source=query.get("source"),
        subject=query.get("subject"),
        since=moment_of("since", query.get("since")),
        until=moment_of("until", query.get("until")),
    )
    found: list[api.PastEvents] = []

    async def read() -> None:
        found.append(await service.past_events.list(wanted, limit))

    await while_connected(request, read())
    return await asyncio.to_thread(answer, found[0])  # some MB, perhaps


_TEXT = {"type": "string"}

ROUTES = [
    Route("GET", "/v1/events", list_past, "List the newest events of a time, oldest first, as far as Kafka has them",
          gives=api.PastEvents, errors=(400, 503),
          queries=(Query("type", "only of this type; a * at its end stands for anything; may be given several times",
                         {"type": "array", "items": _TEXT}),
                   Query("source", "only of this source, in the same form", _TEXT),
                   Query("subject", "only about this, in the same form", _TEXT), SINCE, UNTIL, LIMIT)),
    Route("POST", "/v1/events", publish, "Publish one CloudEvent or a list; answered when Kafka has them",
          takes=dict[str, Any] | list[dict[str, Any]], gives=api.Published, status=202, errors=(400, 413)),
]  # fmt: skip
