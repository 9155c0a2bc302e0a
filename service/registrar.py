"""The registry as the service holds it: the service alone writes `upon.registry`, and reads it like everybody else.

A write is serialized with all others, acknowledged by Kafka, and taken in through the same log that feeds every
part: the registry here never shows what Kafka does not have, and the next request sees the write.

Versions: the same code under the same name is the same version; other code is the next one. A rule's version
goes up when its spec changes and never back, also not after delete and apply: invocation ids derive from it.

Not here: who may write (`auth`), what a rule means (`upon.streams.rules`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aiokafka import ConsumerRecord

from upon.code_hash import code_hash
from upon.errors import ConfigError, FunctionError, InputError, PayloadTooLarge, RuleNotFound, SiteNotFound
from upon.kafka.follow import follow
from upon.logs import get_logger
from upon.messages import (
    MAX_PAYLOAD,
    FunctionCode,
    FunctionRecord,
    RegistryRecord,
    RuleRecord,
    SiteStatus,
    decode,
    encode,
    registry_key,
)
from upon.registry import Registry
from upon.service.outbox import Outbox, Place
from upon.topics import Topics, checked_site

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
MAX_SOURCE = 1024 * 1024
"""Bytes of source text kept with a function, for people."""
_any_record: Any = RegistryRecord  # a union: mypy takes it for no type that can be passed
log = get_logger(__name__)


class ParsedRule(Protocol):
    """What the registrar needs of a rule: its name, and its spec as plain data."""

    @property
    def name(self) -> str: ...
    @property
    def spec(self) -> dict[str, Any]: ...


class Registrar:
    """Registry, kept up with Kafka, and the one writer of it.

    Args:
        kafka: bootstrap address.
        topics: the deployment's topics.
        outbox: where writes go.
    """

    def __init__(self, kafka: str, topics: Topics, outbox: Outbox) -> None:
        self._kafka, self._topics, self._outbox = kafka, topics, outbox
        self.registry = Registry()
        self.caught_up = asyncio.Event()
        self.site_listeners: list[Callable[[], None]] = []
        """Called when a site is heard of for the first time."""
        self._heard: dict[str, float] = {}
        self._writing = asyncio.Lock()
        self._taken_in = 0  # next offset of the registry's one partition
        self._progressed = asyncio.Event()

    async def run(self) -> None:
        """Follow registry and sites until cancelled.

        Raises:
            KafkaUnavailable: no broker answers at the start.
        """
        topics = [self._topics.registry, self._topics.sites]
        await follow(self._kafka, "upon-service-registry", topics, self._take, caught_up=self.caught_up)

    def heard(self, site: str) -> float:
        """Return when a site's dispatcher was last heard, s since the epoch on this machine's clock; 0 = never."""
        return self._heard.get(site, 0.0)

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
        """Make code known; nothing happens if it is known already.

        Raises:
            FunctionError: its hash is not the one of its body.
            PayloadTooLarge: it does not fit into a record.
        """
        await asyncio.to_thread(check_code, code)  # some work for a large body: not in the event loop
        if code.hash not in self.registry.code:
            stamped = FunctionCode(hash=code.hash, body=code.body, python=code.python, created=time.time_ns())
            await self._write([stamped])

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
        code = FunctionCode(hash=await asyncio.to_thread(code_hash, body), body=body, python=python)
        await self.add_code(code)
        async with self._writing:
            versions = self.registry.functions.get(name, {})
            for record in versions.values():
                if record.code == code.hash:
                    return record
            record = FunctionRecord(
                name=name,
                version=max(versions, default=0) + 1,
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

    async def apply_rules(self, rules: Sequence[ParsedRule], *, file: str, principal: str) -> list[RuleRecord]:
        """Put rules in force, all or none; return their records, in the order given. Unchanged ones stay as they are.

        Raises:
            InputError: two rules have one name.
        """
        names = [rule.name for rule in rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"rules: the name {twice[0]!r} is used twice in {file}")
        async with self._writing:
            records = [self._next_rule(rule, file, principal) for rule in rules]
            new = [record for record in records if self.registry.rules.get(record.name) != record]
            await self._write(new)
        for record in new:
            log.info("rule applied", action="apply", rule=record.name, version=record.version)
        return records

    async def delete_rule(self, name: str, principal: str) -> RuleRecord:
        """Put a rule out of force; return what it was.

        Raises:
            RuleNotFound: there is none of this name; the message names what there is.
        """
        async with self._writing:
            found = self.registry.rules.get(name)
            if found is None:
                known = ", ".join(sorted(self.registry.rules)) or "none yet"
                raise RuleNotFound(f"rule {name!r} does not exist; there are: {known}")
            gone = RuleRecord(
                name=name,
                version=found.version,
                spec=found.spec,
                file=found.file,
                principal=principal,
                created=time.time_ns(),
                deleted=True,
            )
            await self._write([gone])
        log.info("rule deleted", action="delete", rule=name, version=found.version)
        return found

    def _next_rule(self, rule: ParsedRule, file: str, principal: str) -> RuleRecord:
        live = self.registry.rules.get(rule.name)
        last = live or self.registry.deleted_rules.get(rule.name)
        same = last is not None and last.spec == rule.spec
        if live is not None and same:
            return live
        version = 1 if last is None else last.version if same else last.version + 1
        return RuleRecord(
            name=rule.name, version=version, spec=rule.spec, file=file, principal=principal, created=time.time_ns()
        )

    async def _write(self, records: Sequence[RegistryRecord]) -> None:
        """Write records; return once Kafka has them all and the registry here shows them."""
        acks = [await self._outbox.send(self._topics.registry, encode(r), registry_key(r)) for r in records]
        places: list[Place] = [await ack for ack in acks]
        last = max((place.offset for place in places), default=-1)
        while self._taken_in <= last:
            self._progressed.clear()
            await self._progressed.wait()

    # ── following ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, record: ConsumerRecord) -> None:
        try:
            if record.topic == self._topics.sites:
                self._take_site(record)
            elif record.value is None:
                self.registry.remove(record.key or b"")
            else:
                self.registry.apply(decode(record.value, _any_record))
        except (InputError, ConfigError, ValueError) as error:
            origin = f"{record.topic}/{record.partition}/{record.offset}"
            log.error("passed over a record of the registry that cannot be read", action="follow", origin=origin,
                      reason=str(error))  # fmt: skip
        if record.topic == self._topics.registry:
            self._taken_in = record.offset + 1
            self._progressed.set()

    def _take_site(self, record: ConsumerRecord) -> None:
        if record.value is None:
            return
        status = decode(record.value, SiteStatus)
        new = checked_site(status.site) not in self.registry.sites
        self.registry.apply_site(status)
        self._heard[status.site] = time.time() if self.caught_up.is_set() else record.timestamp / 1000
        if new:
            for listener in self.site_listeners:
                listener()


def check_code(code: FunctionCode) -> None:
    """Raise FunctionError or PayloadTooLarge if this cannot be stored as code."""
    if not code.body:
        raise FunctionError("body: is empty; send what `upon.serialize.dump_function` returns")
    if len(code.body) > MAX_PAYLOAD:
        raise PayloadTooLarge(
            f"the function has {len(code.body):,} bytes serialized, the limit is {MAX_PAYLOAD:,}: "
            "import large data in the function in place of closing over it"
        )
    if code_hash(code.body) != code.hash:
        raise FunctionError(f"hash {code.hash!r} is not the `upon.code_hash` of the body")


def check_name(name: str) -> None:
    """Raise FunctionError if `name` cannot name a function."""
    if not NAME.fullmatch(name):
        raise FunctionError(
            f"function name {name!r}: use letters, digits, '_', '.' and '-', first no '.' or '-', at most 200"
        )
