"""The registry as the service holds it: the service alone writes `upon.registry`, and reads it like everybody else.

A write is serialized with all others, acknowledged by Kafka, and taken in through the same log that feeds every
part: the registry here never shows what Kafka does not have, and the next request sees the write.

Versions: the same code under the same name is the same version; other code is the next one, and no number is given
twice. What a request makes of the rules is computed by `upon.service.rule_changes`, which versions it deletes by
`upon.service.function_changes`. Numbers are given by whoever has the turn (`turn`), of several
services one at a time, from a registry that shows all that was written before (`_alone`).

Not here: who may write (`auth`), what a rule means (`upon.streams.rules`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, TypeVar

from aiokafka import ConsumerRecord
from msgspec import structs

from upon.code_hash import code_hash
from upon.errors import ConfigError, FunctionError, InputError, PayloadTooLarge, SiteNotFound
from upon.kafka.batches import Entry, Lane, Place
from upon.kafka.ends import Ends
from upon.kafka.follow import follow
from upon.kafka.forms import WHOLE
from upon.kafka.outbox import Outbox
from upon.kafka.progress import Progress
from upon.logs import get_logger
from upon.messages import (
    MAX_PAYLOAD,
    FunctionCode,
    FunctionRecord,
    RegistryRecord,
    SiteStatus,
    code_key,
    decode,
    encode,
    registry_key,
)
from upon.registry import Registry
from upon.service.rule_changes import Plan, RuleChange
from upon.service.rule_history import prunable
from upon.service.store.turn import Turn
from upon.service.unused_code import is_due, unused
from upon.topics import Topics, checked_site, origin_of

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
MAX_SOURCE = 1024 * 1024
"""Bytes of source text kept with a function, for people."""
AT_ONCE = 1_000
"""Records that are deleted in one turn."""
MAX_UNREADABLE = 1_000
"""Records that cannot be read of which is remembered what they are about."""
KAFKA_TIMEOUT = 30.0
"""Seconds that Kafka has to say where the registry ends."""
R = TypeVar("R", bound=RegistryRecord)
_any_record: Any = RegistryRecord  # a union: mypy takes it for no type that can be passed
log = get_logger(__name__)


class Registrar:
    """Registry, kept up with Kafka, and the one writer of it.

    Args:
        kafka: bootstrap address.
        topics: the deployment's topics.
        outbox: where writes go.
        ends: where partitions end.
        turn: of whichever service changes the registry.
        kept: s that code is kept which is not used and which no registered function has; 0 = for good.
    """

    def __init__(  # noqa: PLR0917
        self, kafka: str, topics: Topics, outbox: Outbox, ends: Ends, turn: Turn, kept: float = 0.0
    ) -> None:
        self._kafka, self._topics, self._outbox, self._ends, self._turn = kafka, topics, outbox, ends, turn
        self._kept = kept
        self.registry = Registry()
        self.caught_up = asyncio.Event()
        self.site_listeners: list[Callable[[], None]] = []
        """Called when a site is heard of for the first time."""
        self.unreadable: dict[str, str] = {}
        """Newest records that cannot be read and count for nothing: key → where it stands, and why."""
        self._writing = asyncio.Lock()
        self._taken_in = Progress()  # of the registry's one partition

    async def run(self) -> None:
        """Follow registry and sites until cancelled.

        Raises:
            KafkaUnavailable: no broker answers at the start.
        """
        topics = [self._topics.registry, self._topics.sites]
        await follow(
            self._kafka,
            "upon-service-registry",
            topics,
            self._take,
            caught_up=self.caught_up,
            spec_of=self._topics.spec_of,
        )

    def known_site(self, site: str) -> str:
        """Return `site` if a dispatcher has announced it.

        Raises:
            SiteNotFound: none has; the message names what there is.
        """
        if site not in self.registry.sites:
            known = ", ".join(sorted(self.registry.sites)) or "none: no dispatcher has announced one yet"
            raise SiteNotFound(f"site {site!r} does not exist; there are: {known}")
        return site

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def add_code(self, code: FunctionCode) -> None:
        """Make code known. If it is, nothing is written but now and then a record that says that it is used still.

        Raises:
            FunctionError: its hash is not the one of its body.
            PayloadTooLarge: it does not fit into a record.
        """
        await asyncio.to_thread(check_code, code)  # some work for a large body: not in the event loop
        await self._keep_code(code)

    async def _keep_code(self, code: FunctionCode) -> None:
        if not is_due(self.registry.codes.get(code.hash, 0), time.time_ns(), self._kept):
            return  # nor is it about to be dropped
        async with self._alone():
            now = time.time_ns()
            if is_due(self.registry.codes.get(code.hash, 0), now, self._kept):
                await self._write([FunctionCode(hash=code.hash, body=code.body, python=code.python, created=now)])

    async def drop_unused(self, unfinished: Callable[[], Awaitable[int]]) -> int:
        """Delete the code that no registered function has, and that no task needs; return how much it was.

        Args:
            unfinished: asks when the oldest task that is not done was submitted, ns since the epoch; 0: there is none.
        """
        if not unused(self.registry, time.time_ns(), self._kept, 0):
            return 0
        oldest = await unfinished()
        async with self._alone():
            gone = unused(self.registry, time.time_ns(), self._kept, oldest)
            await self._write_all([(code_key(code), None) for code in gone])
        if gone:
            log.info("code that is not used any more is deleted", action="drop_code", count=len(gone))
        return len(gone)

    async def prune_rules(self, before: int, oldest: Callable[[], Awaitable[int | None]]) -> int:
        """Delete the records of the rules' history that nothing needs; return how many, at most `AT_ONCE`.

        Args:
            before: no event older than this shall be in Kafka, ns since the epoch.
            oldest: asks how old the oldest is that is; None: not known.
        """
        if not any(prunable(self.registry, before)) or (at := await oldest()) is None:
            return 0
        async with self._alone():
            gone = list(islice(prunable(self.registry, min(before, at)), AT_ONCE))
            await self._write_all([(key, None) for key in gone])
        if gone:
            log.info("changes of rules that decide over nothing any more are deleted", action="prune_rules",
                     count=len(gone))  # fmt: skip
        return len(gone)

    async def add_function(
        self, name: str, body: bytes, *, python: str, description: str, source: str, principal: str
    ) -> FunctionRecord:
        """Register a version of a named function; return the version there is of this code, if there is one.

        Raises:
            FunctionError: the name or the body cannot be a function's.
            PayloadTooLarge: code or source text do not fit into a record.
        """
        check_name(name)
        if len(source.encode()) > MAX_SOURCE:
            raise PayloadTooLarge(f"source: {len(source.encode()):,} bytes, the limit is {MAX_SOURCE:,}")
        code = FunctionCode(hash=await asyncio.to_thread(checked_hash, body), body=body, python=python)
        await self._keep_code(code)
        async with self._alone():
            versions = self.registry.functions.get(name, {})
            for record in versions.values():
                if record.code == code.hash:
                    return record
            record = FunctionRecord(
                name=name,
                version=self.registry.next_version(name),
                code=code.hash,
                description=description,
                source=source,
                python=python,
                principal=principal,
                created=time.time_ns(),
            )
            await self._write([record])
        log.info("function registered", action="register", function=name, version=record.version, code=code.hash)
        return record

    async def delete_functions(self, planned: Callable[[Registry], Sequence[FunctionRecord]]) -> None:
        """Write what is left of versions that are deleted, as `planned` from the registry; return when they are gone.

        Raises:
            UponError: what `planned` raises. Nothing changed.
        """
        async with self._alone():
            gone = planned(self.registry)
            await self._write(gone)
        for record in gone:
            log.info("function deleted", action="delete_function", function=record.name, version=record.version)

    async def change_rules(self, planned: Callable[[Registry], Plan]) -> tuple[RuleChange, ...]:
        """Do what `planned` makes of the registry, all or nothing; return once it is in force.

        Raises:
            PayloadTooLarge: a rule, or all changes together, fit into no record. Nothing changed.
            UponError: what `planned` raises. Nothing changed.
        """
        async with self._alone():
            plan = planned(self.registry)
            file = {one.name: one.activation.file for one in plan.changes}
            revisions = [_checked(one, f"rule {one.name!r} of {file[one.name]}") for one in plan.revisions]
            if plan.activations is not None:
                activations = structs.replace(plan.activations, ends=await self._ends_of_events())
                _checked(activations, "the changes of this request")
                await self._write(revisions)  # without an activation they mean nothing
                await self._write([structs.replace(activations, ends=await self._ends_of_events())])
        for change in plan.changes:
            if change.change != "unchanged":
                log.info("rule changed", action="rules", rule=change.name, revision=change.activation.revision,
                         change=change.change)  # fmt: skip
        return plan.changes

    async def _ends_of_events(self) -> dict[int, int]:
        """Return where each partition of the events ends now."""
        partitions = await self._ends.partitions([self._topics.events], KAFKA_TIMEOUT)
        ends = await self._ends.ends(partitions, KAFKA_TIMEOUT)
        return {number: end for (_, number), end in ends.items()}

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Be the only one that writes, with a registry that shows all that was written before."""
        async with self._writing, self._turn.taken():
            registry = await self._ends.partitions([self._topics.registry], KAFKA_TIMEOUT)
            await self._taken_in.reach(max((await self._ends.ends(registry, KAFKA_TIMEOUT)).values(), default=0))
            yield

    async def _write(self, records: Sequence[RegistryRecord]) -> None:
        """Write records; return once Kafka has them all and the registry here shows them."""
        await self._write_all([(registry_key(record), encode(record)) for record in records])

    async def _write_all(self, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write records by key, None as tombstones; return as `_write`."""
        lane = Lane(self._topics.registry, WHOLE)
        acks = [await self._outbox.send(lane, Entry(value, key=key)) for key, value in records]
        places: list[Place] = [await ack for ack in acks]
        await self._taken_in.reach(max((place.offset + 1 for place in places), default=0))

    # ── following ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, record: ConsumerRecord) -> None:
        try:
            if record.topic == self._topics.sites:
                self._take_site(record)
            elif record.value is None:
                self.registry.remove(record.key or b"")
            else:
                self.registry.apply(decode(record.value, _any_record), record.timestamp * 1_000_000)
        except (InputError, ConfigError, ValueError) as error:
            origin = origin_of(record.topic, record.partition, record.offset)
            if len(self.unreadable) < MAX_UNREADABLE:
                self.unreadable[_key_of(record)] = f"{origin}: {error}"
            log.error("passed over a record of the registry that cannot be read", action="follow", origin=origin,
                      reason=str(error))  # fmt: skip
        else:
            self.unreadable.pop(_key_of(record), None)
        if record.topic == self._topics.registry:
            self._taken_in.took(record.offset)

    def _take_site(self, record: ConsumerRecord) -> None:
        if record.value is None:
            return
        status = decode(record.value, SiteStatus)
        new = checked_site(status.site) not in self.registry.sites
        self.registry.apply_site(status, time.time_ns() if self.caught_up.is_set() else record.timestamp * 1_000_000)
        if new:
            for listener in self.site_listeners:
                listener()


def _key_of(record: ConsumerRecord) -> str:
    """Return what a record of registry or sites is about, for people."""
    key = (record.key or b"").decode(errors="replace")
    return key if "/" in key else f"site/{key}"


def _checked(record: R, what: str) -> R:
    """Return a record that Kafka will take. Raises PayloadTooLarge."""
    if (size := len(encode(record))) > MAX_PAYLOAD:
        raise PayloadTooLarge(f"{what}: {size:,} bytes as a record, the limit is {MAX_PAYLOAD:,}: nothing was changed")
    return record


def checked_hash(body: bytes) -> str:
    """Return the hash of a function's body. Raises FunctionError or PayloadTooLarge if it cannot be stored as code."""
    if not body:
        raise FunctionError("body: is empty; send what `upon.serialize.dump_function` returns")
    if len(body) > MAX_PAYLOAD:
        raise PayloadTooLarge(
            f"the function has {len(body):,} bytes serialized, the limit is {MAX_PAYLOAD:,}: "
            "import large data in the function in place of closing over it"
        )
    return code_hash(body)


def check_code(code: FunctionCode) -> None:
    """Raise FunctionError or PayloadTooLarge if this cannot be stored as code."""
    if checked_hash(code.body) != code.hash:
        raise FunctionError(f"hash {code.hash!r} is not the `upon.code_hash` of the body")


def check_name(name: str) -> None:
    """Raise FunctionError if `name` cannot name a function."""
    if not NAME.fullmatch(name):
        raise FunctionError(
            f"function name {name!r}: use letters, digits, '_', '.' and '-', first no '.' or '-', at most 200"
        )
