"""/v1/events: publish CloudEvents, one or a list."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from upon import api
from upon.errors import EventError, PayloadTooLarge
from upon.events import Event, from_dict, write_record
from upon.kafka.batches import Entry
from upon.kafka.forms import EVENTS
from upon.messages import MAX_PAYLOAD
from upon.service.context import Service
from upon.service.routing import Route, answer, read_body, while_connected


async def publish(service: Service, request: web.Request) -> web.Response:
    events = read_events(await read_body(request, Any))
    entries = [entry_of(event) for event in events]

    async def write() -> None:
        topic, outbox = service.topics.events, service.outbox
        pairs = [(await outbox.partition_lane(topic, EVENTS, entry.key), entry) for entry in entries]
        await (await outbox.send_all(pairs))

    await while_connected(request, write())
    return answer(api.Published(ids=[event.id for event in events]), 202)


def read_events(body: Any) -> list[Event]:
    """Return the events of a body. Raises EventError, which names index and attribute."""
    if not isinstance(body, list):
        return [from_dict(body)]
    events = []
    for index, one in enumerate(body):
        try:
            events.append(from_dict(one))
        except EventError as error:
            raise EventError(f"[{index}]: {error}") from error
    return events


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


ROUTES = [
    Route("POST", "/v1/events", publish, "Publish one CloudEvent or a list; answered when Kafka has them",
          takes=dict[str, Any] | list[dict[str, Any]], gives=api.Published, status=202, errors=(400, 413)),
]  # fmt: skip
