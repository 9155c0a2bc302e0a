"""What a stream worker knows of the world: rules, functions and sites, as the registry's topics tell it.

Fed with records in order; changed rules are compiled, and put into the index, when it is next needed: the topic holds
many revisions of a rule, of which few decide over anything. A record or a rule that cannot be read is logged and left
out, and the others work: the service checks rules before it writes them, so this is a version skew.
Not here: reading the topics (`upon.kafka.follow`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

from upon.errors import InputError
from upon.logs import get_logger
from upon.messages import RegistryRecord, RuleActivations, SiteStatus, decode
from upon.moments import Since
from upon.registry import Registry, Standing
from upon.streams.rules import FOREVER, Rule, rule_from_spec
from upon.streams.timeline import RulesOverTime

RULES_AT_ONCE = 20
"""Changed rules that are compiled, some 0.3 ms each, before others get their turn."""
log = get_logger(__name__)


Changed = Callable[[int, Since, Iterable[str]], None]
"""Told of activations: their number, since when, which rules."""


class Catalogue:
    """Registry, compiled rules and their index, always of the newest records seen.

    Args:
        changed: told of activations as they are taken in.

    Attributes:
        number: of the newest activations that were taken in, 0 = none.
    """

    def __init__(self, changed: Changed = lambda number, since, rules: None) -> None:
        self.registry = Registry()
        self.number = 0
        self._tell = changed
        self._changed: dict[str, None] = {}  # rules, since the index was last asked for
        self._rules = RulesOverTime(past=self._past)

    @property
    def rules(self) -> RulesOverTime:
        """The index over all rules, with every change in it."""
        for _ in self.renew():
            pass
        return self._rules

    async def renewed(self, at: int = FOREVER) -> RulesOverTime:
        """Return the index with every change in it; others get their turn while many rules are compiled.

        Args:
            at: of the event that is asked for, ns since the epoch: an older one than the last change needs what was.
        """
        for number, _ in enumerate(self.renew(at), 1):
            if number % RULES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return self.rules

    def renew(self, at: int = FOREVER) -> Iterator[None]:
        """Take changed rules into the index, one a step."""
        while self._changed:
            self._put_in_force(next(iter(self._changed)))
            yield
        yield from self._rules.read_past(at)

    def take_registry(self, key: bytes, value: bytes | None, recorded: int) -> None:
        """Take in a record of the registry's topic; no value is a tombstone. `recorded`: when Kafka had it, ns."""
        try:
            if value is None:
                self._remove(key)
                return
            record: RegistryRecord = decode(value, RegistryRecord)  # type: ignore[arg-type]
        except (InputError, ValueError) as error:
            log.error("a registry record is left out", action="registry", key=repr(key), error=str(error))
            return
        self.registry.apply(record, recorded)
        if isinstance(record, RuleActivations):
            self.number = max(self.number, record.number)
            names = [one.rule for one in record.rules]
            self._changed |= dict.fromkeys(names)
            self._tell(record.number, self.registry.changes[record.number], names)

    def _remove(self, key: bytes) -> None:
        kind, _, number = key.partition(b"/")
        about = self.registry.activations.get(int(number), ()) if kind == b"activations" else ()
        self.registry.remove(key)
        for rule in about:
            self._rules.forget_past(rule)

    def take_site(self, value: bytes | None, heard: int) -> None:
        """Take in a record of the sites' topic. `heard`: when, ns since the epoch on this machine's clock."""
        if value is None:
            return
        try:
            self.registry.apply_site(decode(value, SiteStatus), heard)
        except InputError as error:
            log.error("a site record is left out", action="registry", error=str(error))

    def _put_in_force(self, name: str) -> None:
        del self._changed[name]
        timeline = self.registry.timelines.get(name)
        if not timeline:
            self._rules.put(name, None, 0)
            return
        rule = self._compiled(timeline[-1], FOREVER)
        self._rules.put(name, rule, timeline[-1].since)
        if rule is not None:
            log.debug("rule in force", action="registry", rule=name, revision=rule.revision)

    def _past(self, name: str) -> Iterator[Rule]:
        for one, following in pairwise(self.registry.timelines.get(name, ())):
            if one.since < following.since and (rule := self._compiled(one, following.since)) is not None:
                yield rule

    def _compiled(self, standing: Standing, until: int) -> Rule | None:
        """Return the rule that fires while it stands so; None when none does."""
        activation = standing.activation
        if standing.deleted or not activation.enabled:
            return None
        try:
            revision = self.registry.revision(activation.rule, activation.revision)
            rule = rule_from_spec(revision.spec, revision=revision.revision, file=activation.file)
        except Exception as error:  # whatever one rule does to the code that reads it: the others must work
            log.error("a rule does not work and is left out", action="registry", rule=activation.rule,
                      revision=activation.revision, error=f"{type(error).__name__}: {error}")  # fmt: skip
            return None
        return replace(rule, epoch=activation.epoch, since=standing.since, until=until)
