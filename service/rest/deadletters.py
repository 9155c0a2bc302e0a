"""/v1/deadletters: what could not be processed: listed, shown, tried again, dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Literal

from aiohttp import web
from aiokafka import TopicPartition
from sqlalchemy import Row

from upon import api
from upon.deadletters import completed, received
from upon.errors import DeadLetterNotFound, InputError, PayloadTooLarge
from upon.kafka.batches import Entry, Lane
from upon.kafka.forms import with_headers
from upon.messages import DeadLetter, Resolved, encode
from upon.service.again import CannotRetry, event_again
from upon.service.context import PRINCIPAL, Service
from upon.service.rest import views
from upon.service.rest.routing import AFTER, LIMIT, SINCE, UNTIL, Query, Route, answer, limit_of, moment_of, read_body
from upon.service.rest.tasks import WAIT_LISTING, caught_up
from upon.service.store import queries
from upon.service.store.queries import LetterFilter
from upon.topics import place_of

AT_ONCE = 200
"""Dead letters that one request deals with; each may hold 16 MB."""
STATUSES = ("open", "retried", "dropped")


async def list_some(service: Service, request: web.Request) -> web.Response:
    query, limit = request.query, limit_of(request)
    status = query.get("status", "open")
    if status not in (*STATUSES, "all"):
        raise InputError(f"status: one of {', '.join(STATUSES)}, all, not {status!r}")
    wanted = LetterFilter(
        status=None if status == "all" else status,
        rule=query.get("rule"),
        reason=query.get("reason"),
        since=moment_of("since", query.get("since")),
        until=moment_of("until", query.get("until")),
        after=query.get("after"),
    )
    await caught_up(service, WAIT_LISTING)
    rows = await service.store.read(queries.list_deadletters, wanted, limit)
    return answer([views.listed_letter(row) for row in rows])


async def show(service: Service, request: web.Request) -> web.Response:
    id = request.match_info["id"]
    await caught_up(service, WAIT_LISTING)
    found = await service.store.read(queries.find_deadletters, id)
    if len(found) != 1:
        what = "several dead letters begin with" if found else "no dead letter has the id"
        raise DeadLetterNotFound(f"{what} {id!r}; `upon deadletters list` shows what there is")
    row = await service.store.read(queries.get_deadletter, found[0])
    if row is None:
        raise DeadLetterNotFound(f"no dead letter has the id {id!r}")
    return answer(await asyncio.to_thread(views.whole_letter, row))


async def retry(service: Service, request: web.Request) -> web.Response:
    return await _deal(service, await read_body(request, api.LetterChoice), "retried")


async def drop(service: Service, request: web.Request) -> web.Response:
    return await _deal(service, await read_body(request, api.LetterChoice), "dropped")


async def _deal(service: Service, choice: api.LetterChoice, how: Literal["retried", "dropped"]) -> web.Response:
    """Deal with the chosen letters, some at a time, and say in Kafka that this was done."""
    wanted = chosen(choice)
    await caught_up(service, WAIT_LISTING)
    rows = await service.store.read(queries.list_deadletters, wanted, AT_ONCE)
    done: list[str] = []
    refused = [api.NotDealt(id=id, reason="no open dead letter has this id") for id in _missing(choice, rows)]
    for row in rows:
        try:
            if how == "retried":
                await _retry(service, row.id)
            done.append(row.id)
        except (CannotRetry, PayloadTooLarge) as error:
            refused.append(api.NotDealt(id=row.id, reason=str(error)))
    if done:
        resolved = Resolved(ids=tuple(done), how=how, principal=PRINCIPAL, at=time.time_ns())
        await service.outbox.put(service.topics.deadletter, encode(resolved), b"resolved")
        await caught_up(service, WAIT_LISTING)
    after = rows[-1].id if len(rows) == AT_ONCE else None
    return answer(api.Dealt(ids=done, refused=refused, after=after), 202)


async def _retry(service: Service, id: str) -> None:
    row = await service.store.read(queries.get_deadletter, id)
    if row is None:
        raise CannotRetry("it is no longer kept")
    letter = await _completed(service, views.stored(row.record, DeadLetter))
    key, value, headers = await asyncio.to_thread(event_again, letter, service.registrar.registry.rules)
    lane = Lane(service.topics.events, with_headers(headers))
    await (await service.outbox.send(lane, Entry(value, key=key or None)))


async def _completed(service: Service, letter: DeadLetter) -> DeadLetter:
    """Return a letter with its event, if that is not kept in it and still stands where it stood in Kafka."""
    place = place_of(letter.origin)
    if letter.whole or place is None or place[0] != service.topics.events:
        return letter
    topic, partition, offset = place
    at = (TopicPartition(topic, partition), offset)
    record = (await service.places.read({at})).get(at)
    found = None if record is None else await asyncio.to_thread(completed, letter, received(record))
    return letter if found is None else found


def chosen(choice: api.LetterChoice) -> LetterFilter:
    """Return the filter of a choice. Raises InputError if nothing is chosen, or both ids and a filter."""
    filters = (choice.rule, choice.reason, choice.since, choice.until)
    some = any(one is not None for one in filters)
    if not (choice.ids is not None or some or choice.all):
        raise InputError("choose dead letters: ids, rule, reason, since, until, or all")
    if choice.ids is not None and (some or choice.all or len(choice.ids) > AT_ONCE):
        raise InputError(f"ids: at most {AT_ONCE}, and without a filter beside them")
    return LetterFilter(
        ids=None if choice.ids is None else tuple(choice.ids),
        rule=choice.rule,
        reason=choice.reason,
        since=moment_of("since", choice.since),
        until=moment_of("until", choice.until),
        after=choice.after,
    )


def _missing(choice: api.LetterChoice, rows: Sequence[Row[Any]]) -> list[str]:
    there = {row.id for row in rows}
    return [id for id in choice.ids or () if id not in there]


_TEXT = {"type": "string"}

ROUTES = [
    Route("GET", "/v1/deadletters", list_some, "List dead letters, newest first, without what they hold",
          gives=list[api.DeadLetterView], errors=(400, 503),
          queries=(Query("status", "open (default), retried, dropped or all",
                         {"type": "string", "enum": [*STATUSES, "all"]}),
                   Query("rule", "only of this rule", _TEXT),
                   Query("reason", "only with this in their reason", _TEXT), SINCE, UNTIL, AFTER, LIMIT)),
    Route("GET", "/v1/deadletters/{id}", show, "Show a dead letter by its id, or the beginning of it",
          gives=api.DeadLetterView, errors=(404, 503)),
    Route("POST", "/v1/deadletters/retry", retry, "Try again what could not be processed: rules fire, once",
          takes=api.LetterChoice, gives=api.Dealt, status=202, errors=(400, 503)),
    Route("POST", "/v1/deadletters/drop", drop, "Mark dead letters as dealt with",
          takes=api.LetterChoice, gives=api.Dealt, status=202, errors=(400, 503)),
]  # fmt: skip
