"""What a stream worker knows of the world: rules, functions and sites, as the registry's topics tell it.

Fed with records in order; changed rules are compiled, and the index over all is rebuilt, when it is next needed: the
topic may hold many versions of a rule, of which only the newest counts. A record that does not parse is logged and
left out: the service checks rules before it writes them, so this is a version skew.
Not here: reading the topics (`upon.kafka.follow`).
"""

from __future__ import annotations

from upon.errors import InputError, RuleError
from upon.logs import get_logger
from upon.messages import RegistryRecord, RuleRecord, SiteStatus, decode
from upon.registry import Registry
from upon.streams.matcher import Matcher
from upon.streams.rules import Rule, rule_from_spec

log = get_logger(__name__)


class Catalogue:
    """Registry, compiled rules and their index, always of the newest records seen."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._rules: dict[str, Rule] = {}
        self._changed: dict[str, RuleRecord | None] = {}  # since the index was built; None: gone
        self._matcher: Matcher[Rule] | None = None

    @property
    def matcher(self) -> Matcher[Rule]:
        """The index over all rules; immutable, a new one after each change."""
        if self._matcher is None or self._changed:
            changed, self._changed = self._changed, {}
            for name, record in changed.items():
                self._compile(name, record)
            self._matcher = Matcher([self._rules[name] for name in sorted(self._rules)])
        return self._matcher

    def take_registry(self, key: bytes, value: bytes | None) -> None:
        """Take in a record of the registry's topic; no value is a tombstone."""
        try:
            if value is None:
                self.registry.remove(key)
                self._forget(key)
                return
            record: RegistryRecord = decode(value, RegistryRecord)  # type: ignore[arg-type]
        except (InputError, ValueError) as error:
            log.error("a registry record is left out", action="registry", key=repr(key), error=str(error))
            return
        self.registry.apply(record)
        if isinstance(record, RuleRecord):
            self._changed[record.name] = None if record.deleted else record

    def take_site(self, value: bytes | None) -> None:
        """Take in a record of the sites' topic."""
        if value is None:
            return
        try:
            self.registry.apply_site(decode(value, SiteStatus))
        except InputError as error:
            log.error("a site record is left out", action="registry", error=str(error))

    def _compile(self, name: str, record: RuleRecord | None) -> None:
        self._rules.pop(name, None)
        if record is None:
            log.debug("rule removed", action="registry", rule=name)
            return
        try:
            self._rules[name] = rule_from_spec(record.spec, version=record.version, file=record.file)
        except RuleError as error:
            log.error("a rule does not work", action="registry", rule=name, error=str(error))
        else:
            log.debug("rule in force", action="registry", rule=name, version=record.version)

    def _forget(self, key: bytes) -> None:
        kind, _, name = key.decode().partition("/")
        if kind == "rule":
            self._changed[name] = None
