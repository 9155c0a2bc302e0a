"""The way of an invocation into Kafka, shared by REST and WebSocket.

Checked here: site, function and code exist; sizes and numbers are in range. A registered function may be named
without its code. Then the invocations travel in batches of one function and sender each (the record's key is the
code's hash), in the order they came.

Guarantee: what `submit` returned for is handed over in order; its future resolves once all is in Kafka. Sent
again with the same ids, the work is still done once. Not here: what a result does (`push`, `projector`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import msgspec

from upon import requirements
from upon.errors import Conflict, FunctionNotFound, InputError, PayloadTooLarge
from upon.ids import task_of
from upon.kafka.batches import Entry, Lane
from upon.kafka.forms import WHOLE, invocation_entry, invocations_lane
from upon.kafka.outbox import Outbox
from upon.messages import MAX_DESCRIPTION, MAX_PAYLOAD, Cancel, Drain, Invocation, encode
from upon.registry import Registry, split_function
from upon.service.registrar import Registrar
from upon.store import reference
from upon.store.reference import is_reference
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
    ) -> asyncio.Future[None]:
        """Hand invocations over; the future resolves when Kafka has them all. Cancelled, it drops what has not left.

        Raises:
            SiteNotFound, FunctionNotFound: names what there is. Nothing was submitted.
            InputError: an id, a group or a number is out of range. Nothing was submitted.
            PayloadTooLarge: arguments, or what describes them, are over their limit. Nothing was submitted.
        """
        topic = self._topics.invocations(self._registrar.known_site(site))
        check_text("group", group, empty=True)
        registry = self._registrar.registry
        invocations = [one if one.code else registered(one, registry) for one in invocations]
        for invocation in invocations:
            if task_of(invocation.id)[1]:
                raise InputError(f"task {invocation.id}: '#' and a number mark what is tried again: `upon tasks retry`")
            check_invocation(invocation, registry)
        return await self._send(topic, site, group, principal, invocations)

    async def again(self, site: str, group: str, principal: str, invocation: Invocation) -> asyncio.Future[None]:
        """Hand over an invocation of a further generation. Raises as `submit`."""
        topic = self._topics.invocations(self._registrar.known_site(site))
        check_invocation(invocation, self._registrar.registry)
        return await self._send(topic, site, group, principal, [invocation])

    async def _send(
        self, topic: str, site: str, group: str, principal: str, invocations: Sequence[Invocation]
    ) -> asyncio.Future[None]:
        now = time.time_ns()
        lanes: dict[str, Lane] = {}
        pairs = []
        for invocation in invocations:
            entry = invocation_entry(invocation, now)
            check_description(invocation, len(entry.body or b""))
            if (lane := lanes.get(invocation.code)) is None:
                lane = lanes[invocation.code] = invocations_lane(
                    topic, site=site, group=group, principal=principal, code=invocation.code
                )
            pairs.append((lane, entry))
        return await self._outbox.send_all(pairs)

    async def cancel(self, site: str, ids: Sequence[str], *, running: bool = True) -> asyncio.Future[None]:
        """Ask a site to cancel invocations, those that have begun only if `running`.

        The future resolves when Kafka has that.

        Raises:
            SiteNotFound: names what there is.
        """
        lane = Lane(self._topics.control(self._registrar.known_site(site)), WHOLE)
        for id in ids:
            check_text("id", id)
        parts = (tuple(ids[n : n + CANCEL_IDS]) for n in range(0, len(ids), CANCEL_IDS))
        return await self._outbox.send_all([(lane, Entry(encode(Cancel(ids=part, running=running)))) for part in parts])

    async def drain(self, site: str, managers: Sequence[str], *, on: bool, principal: str) -> None:
        """Have a site start nothing more (or go on), or some of its managers end; wait until Kafka has that.

        Raises:
            SiteNotFound, InputError: names what there is.
        """
        name = self._registrar.known_site(site)
        known = {manager.id for manager in self._registrar.registry.sites[name].managers}
        if managers and not on:
            raise InputError("a manager that was told to end is not held back: start another one")
        if unknown := [manager for manager in managers if manager not in known]:
            there = ", ".join(sorted(known)) or "none"
            raise InputError(f"site {site} has no manager {unknown[0]!r}; there are: {there}")
        entry = Entry(encode(Drain(managers=tuple(managers), on=on, principal=principal)))
        await (await self._outbox.send_all([(Lane(self._topics.control(name), WHOLE), entry)]))


def check_description(invocation: Invocation, encoded: int) -> None:
    """Raise PayloadTooLarge if an invocation of `encoded` bytes has too much beside its payload."""
    beside = encoded - len(invocation.payload)
    if beside > MAX_DESCRIPTION:
        raise PayloadTooLarge(
            f"task {invocation.id[:MAX_ID]}: names, retry and cause take {beside:,} bytes, the limit is "
            f"{MAX_DESCRIPTION:,}: shorten them"
        )


def registered(invocation: Invocation, registry: Registry) -> Invocation:
    """Return an invocation that names a registered function, ``name[@version]``, with that version's code.

    Raises:
        FunctionNotFound: names what there is.
    """
    check_text("function", invocation.function)
    found = registry.function(*split_function(invocation.function))
    return msgspec.structs.replace(invocation, code=found.code, function=found.name, version=found.version)


def check_invocation(invocation: Invocation, registry: Registry) -> None:
    """Raise what is wrong with an invocation: its function, its code, its numbers or its size."""
    one = invocation
    check_text("id", one.id)
    check_text("function", one.function)
    if one.version < 0 or one.items < 0:
        raise InputError(f"task {one.id}: version and items are not negative, not {one.version} and {one.items}")
    if one.version and (named := registry.function(one.function, one.version)).code != one.code:
        raise Conflict(f"function {one.function}@{one.version} has the code {named.code}, not {one.code}")
    if one.code not in registry.codes:
        raise FunctionNotFound(f"the code {one.code!r} of function {one.function!r} is not known: register it first")
    if not (math.isfinite(one.timeout) and one.timeout >= 0):
        raise InputError(f"task {one.id}: timeout is a number of seconds, 0 = none, not {one.timeout}")
    if one.retry.attempts < 1:
        raise InputError(f"task {one.id}: retry.attempts is at least 1, not {one.retry.attempts}")
    requirements.check(one)
    if is_reference(one.payload):
        reference.decode(one.payload)
    if len(one.payload) > MAX_PAYLOAD:
        raise PayloadTooLarge(
            f"task {one.id}: arguments of {len(one.payload):,} bytes, the limit is {MAX_PAYLOAD:,}: "
            "send what is larger through the store (`Executor` and `Client` do), or pass a path"
        )


def check_text(name: str, value: str, *, empty: bool = False) -> None:
    """Raise InputError if `value` cannot be an id, a group or a name."""
    if len(value) > MAX_ID or not (value or empty) or not value.isprintable():
        raise InputError(f"{name} {value[:MAX_ID]!r}: 1 to {MAX_ID} printable characters")
