"""The registry as a part sees it: the newest record of every function, rule and site.

A pure view over the compacted topics `upon.registry` and `upon.sites`: feed it records in order, ask it names.
Whoever holds one keeps it fed with `upon.kafka.streams.follow`. Not here: writing (the service alone does).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from upon.errors import FunctionNotFound
from upon.messages import FunctionCode, FunctionRecord, RegistryRecord, RuleRecord, SiteStatus


@dataclass(slots=True)
class Registry:
    """Functions by name and version, code by hash, rules in force by name, deleted rules by name, sites by name."""

    code: dict[str, FunctionCode] = field(default_factory=dict)
    functions: dict[str, dict[int, FunctionRecord]] = field(default_factory=dict)
    rules: dict[str, RuleRecord] = field(default_factory=dict)
    deleted_rules: dict[str, RuleRecord] = field(default_factory=dict)
    sites: dict[str, SiteStatus] = field(default_factory=dict)

    def apply(self, record: RegistryRecord) -> None:
        """Take in one record; a newer one of the same key replaces the older."""
        match record:
            case FunctionCode():
                self.code[record.hash] = record
            case FunctionRecord():
                self.functions.setdefault(record.name, {})[record.version] = record
            case RuleRecord(name=name, deleted=True):
                self.rules.pop(name, None)
                self.deleted_rules[name] = record
            case RuleRecord(name=name):
                self.deleted_rules.pop(name, None)
                self.rules[name] = record

    def remove(self, key: bytes) -> None:
        """Take in a tombstone: a key of `upon.messages.registry_key` whose record was deleted."""
        kind, _, name = key.decode().partition("/")
        match kind:
            case "code":
                self.code.pop(name, None)
            case "function":
                name, _, version = name.rpartition("@")
                self.functions.get(name, {}).pop(int(version), None)
                if not self.functions.get(name):
                    self.functions.pop(name, None)
            case "rule":
                self.rules.pop(name, None)
                self.deleted_rules.pop(name, None)

    def apply_site(self, status: SiteStatus) -> None:
        """Take in what a dispatcher says of its site."""
        self.sites[status.site] = status

    def function(self, name: str, version: int | None = None) -> FunctionRecord:
        """Return a function's version, the newest when `version` is None.

        Raises:
            FunctionNotFound: no such name or version; the message names what there is.
        """
        versions = self.functions.get(name)
        if not versions:
            known = ", ".join(sorted(self.functions)) or "none yet"
            raise FunctionNotFound(f"function {name!r} is not registered; there are: {known}")
        found = versions.get(max(versions) if version is None else version)
        if found is None:
            raise FunctionNotFound(f"function {name!r} has no version {version}; there are: {sorted(versions)}")
        return found


def split_function(text: str) -> tuple[str, int | None]:
    """Split ``name[@version]`` into name and version.

    Raises:
        FunctionNotFound: what follows ``@`` is no positive integer.
    """
    name, at, version = text.partition("@")
    if not at:
        return name, None
    if not version.isdigit() or int(version) < 1:
        raise FunctionNotFound(f"function {text!r}: write name or name@version, version a positive integer")
    return name, int(version)
