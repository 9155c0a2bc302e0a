"""/v1/events: publish CloudEvents, one or a list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp import web

from upon import api
from upon.errors import EventError, PayloadTooLarge
from upon.events import Event, from_dict, write_record
from upon.messages import COALESCE_BYTES, MAX_PAYLOAD
from upon.service.context import Service
from upon.service.routing import Route, answer, read_body

Record = tuple[str | None, bytes, list[tuple[str, bytes]]]


async def publish(service: Service, request: web.Request) -> web.Response:
    events = read_events(await read_body(request, Any))
    acks = [
        await service.outbox.send(service.topics.events, value, None if key is None else key.encode(), headers)
        for key, value, headers in list(records(events))
    ]
    for ack in acks:
        await ack
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


def records(events: Sequence[Event]) -> Iterator[Record]:
    """Yield the Kafka records that carry `events`: one key each, its events in order, coalesced to a batch.

    Raises:
        PayloadTooLarge: an event does not fit into a record.
        EventError: an event's data is no JSON.
    """
    by_key: dict[str | None, list[Event]] = {}
    for event in events:
        by_key.setdefault(event.key, []).append(event)
    for key, some in by_key.items():
        if len(some) == 1:
            yield key, *_record(some)
            continue
        batch: list[Event] = []
        size = 0
        for event in some:
            bytes_ = len(_record([event])[0])
            if batch and size + bytes_ > COALESCE_BYTES:
                yield key, *_record(batch)
                batch, size = [], 0
            batch.append(event)
            size += bytes_
        yield key, *_record(batch)


def _record(events: Sequence[Event]) -> tuple[bytes, list[tuple[str, bytes]]]:
    value, headers = write_record(events)
    if len(events) == 1 and len(value) > MAX_PAYLOAD:
        raise PayloadTooLarge(f"event {events[0].id}: {len(value):,} bytes, the limit is {MAX_PAYLOAD:,}")
    return value, headers


ROUTES = [
    Route("POST", "/v1/events", publish, "Publish one CloudEvent or a list; answered when Kafka has them",
          takes=dict[str, Any] | list[dict[str, Any]], gives=api.Published, status=202, errors=(400, 413)),
]  # fmt: skip
