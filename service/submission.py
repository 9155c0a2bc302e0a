"""The way of an invocation into Kafka, shared by REST and WebSocket.

Checked here: site, function and code exist; sizes and numbers are in range. Then the invocations travel in
batches of one function each (the record's key is the code's hash), in the order they came.

Guarantee: what `submit` returned for is handed over in order; its future resolves once all is in Kafka. Sent
again with the same ids, the work is still done once. Not here: what a result does (`push`, `projector`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator, Sequence

from upon.errors import Conflict, FunctionNotFound, InputError, PayloadTooLarge
from upon.messages import COALESCE_BYTES, MAX_PAYLOAD, Cancel, Invocation, InvocationBatch, encode
from upon.registry import Registry
from upon.service.outbox import Outbox, Place
from upon.service.registrar import Registrar
from upon.topics import Topics

MAX_ID = 200
"""Characters of an id, a group or a function's name."""
CANCEL_IDS = 5_000
"""Ids in one record of the control topic, whose records have Kafka's default limit of 1 MB."""


class Submission:
    """Puts invocations and cancellations into a site's topics.

    Args:
        topics: the deployment's topics.
        registrar: knows sites, functions and code.
        outbox: the way to Kafka.
    """

    def __init__(self, topics: Topics, registrar: Registrar, outbox: Outbox) -> None:
        self._topics, self._registrar, self._outbox = topics, registrar, outbox

    async def submit(
        self, site: str, group: str, principal: str, invocations: Sequence[Invocation]
    ) -> list[asyncio.Future[Place]]:
        """Hand invocations over; each future resolves when Kafka has its record.

        Raises:
            SiteNotFound, FunctionNotFound: names what there is. Nothing was submitted.
            InputError: an id, a group or a number is out of range. Nothing was submitted.
            PayloadTooLarge: arguments are over the limit of a record.
        """
        topic = self._topics.invocations(self._registrar.known_site(site))
        check_text("group", group, empty=True)
        for invocation in invocations:
            check_invocation(invocation, self._registrar.registry)
        now = time.time_ns()
        acks = []
        for code, some in batches(invocations):
            batch = InvocationBatch(site=site, group=group, principal=principal, submitted=now, invocations=some)
            acks.append(await self._outbox.send(topic, encode(batch), code.encode()))
        return acks

    async def cancel(self, site: str, ids: Sequence[str]) -> list[asyncio.Future[Place]]:
        """Ask a site to cancel invocations; each future resolves when Kafka has its record.

        Raises:
            SiteNotFound: names what there is.
        """
        topic = self._topics.control(self._registrar.known_site(site))
        for id in ids:
            check_text("id", id)
        parts = (tuple(ids[n : n + CANCEL_IDS]) for n in range(0, len(ids), CANCEL_IDS))
        return [await self._outbox.send(topic, encode(Cancel(ids=part))) for part in parts]


def check_invocation(invocation: Invocation, registry: Registry) -> None:
    """Raise what is wrong with an invocation: its function, its code, its numbers or its size."""
    one = invocation
    check_text("id", one.id)
    check_text("function", one.function)
    if one.version < 0 or one.items < 0:
        raise InputError(f"task {one.id}: version and items are not negative, not {one.version} and {one.items}")
    if one.version and (named := registry.function(one.function, one.version)).code != one.code:
        raise Conflict(f"function {one.function}@{one.version} has the code {named.code}, not {one.code}")
    if one.code not in registry.code:
        raise FunctionNotFound(f"the code {one.code!r} of function {one.function!r} is not known: register it first")
    if not (math.isfinite(one.timeout) and one.timeout >= 0):
        raise InputError(f"task {one.id}: timeout is a number of seconds, 0 = none, not {one.timeout}")
    if one.retry.attempts < 1:
        raise InputError(f"task {one.id}: retry.attempts is at least 1, not {one.retry.attempts}")
    if len(one.payload) > MAX_PAYLOAD:
        raise PayloadTooLarge(
            f"task {one.id}: arguments of {len(one.payload):,} bytes, the limit is {MAX_PAYLOAD:,}: "
            "pass a path or write to shared storage"
        )


def check_text(name: str, value: str, *, empty: bool = False) -> None:
    """Raise InputError if `value` cannot be an id, a group or a name."""
    if len(value) > MAX_ID or not (value or empty) or not value.isprintable():
        raise InputError(f"{name} {value[:MAX_ID]!r}: 1 to {MAX_ID} printable characters")


def batches(invocations: Iterable[Invocation]) -> Iterator[tuple[str, tuple[Invocation, ...]]]:
    """Yield (code, invocations) in the order they came: of one code each, and of about `COALESCE_BYTES` at most."""
    by_code: dict[str, list[Invocation]] = {}
    for one in invocations:
        by_code.setdefault(one.code, []).append(one)
    for code, some in by_code.items():
        batch: list[Invocation] = []
        size = 0
        for one in some:
            bytes_ = len(one.payload) + 256
            if batch and size + bytes_ > COALESCE_BYTES:
                yield code, tuple(batch)
                batch, size = [], 0
            batch.append(one)
            size += bytes_
        if batch:
            yield code, tuple(batch)
