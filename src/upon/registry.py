"""The registry as a part sees it: every function, every revision of a rule and how the rules stood when, every site.

A pure view over the compacted topics `upon.registry` and `upon.sites`: feed it records in order, ask it names.
The functions' bodies are not kept: a dispatcher reads those that it needs (`upon.dispatcher.codes`).
Whoever holds one keeps it fed with `upon.kafka.follow`. Not here: writing (the service alone does).

A rule's timeline is what decides which revision an event meets, by the broker's clock on both sides (`upon.moments`
tells what holds when that was set back):

    activations 1          4            9                 number, and when Kafka had it
    ────────────●──────────●────────────●──────────▶
    rule "a":   a@1        a@2          deleted           `timelines["a"]`: three standings
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from upon.errors import FunctionNotFound, RuleNotFound
from upon.messages import (
    FunctionCode,
    FunctionRecord,
    RegistryRecord,
    RuleActivation,
    RuleActivations,
    RuleRevision,
    SiteStatus,
)
from upon.moments import Moment, Since

R = TypeVar("R")
SITE_SILENT = 15.0
"""Seconds without a word from its dispatcher after which a site counts as down."""
NAMED = 20
"""So many names an error lists."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a rule stands from a moment on.

    Attributes:
        since: when Kafka had the activations, ns since the epoch, the broker's clock; never before earlier ones.
        number, action, principal: of the activations.
        activation: the rule's own part of them.
    """

    since: int
    number: int
    action: str
    principal: str
    activation: RuleActivation

    @property
    def deleted(self) -> bool:
        return self.activation.revision == 0


@dataclass(slots=True)
class Registry:
    """Functions by name and version, rules by name and revision, their timelines, sites by name.

    Attributes:
        codes: when each code was last registered, by hash, ns since the epoch.
        deleted: what is left of versions of functions that were deleted.
    """

    codes: dict[str, int] = field(default_factory=dict)
    functions: dict[str, dict[int, FunctionRecord]] = field(default_factory=dict)
    deleted: dict[str, dict[int, FunctionRecord]] = field(default_factory=dict)
    revisions: dict[str, dict[int, RuleRevision]] = field(default_factory=dict)
    timelines: dict[str, list[Standing]] = field(default_factory=dict)
    activations: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Which rules each number is about."""
    changes: dict[int, Since] = field(default_factory=dict)
    """From when on each number is in force, in the order in which they came."""
    sites: dict[str, SiteStatus] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    """When each site's dispatcher was last heard, ns since the epoch on this machine's clock."""

    def apply(self, record: RegistryRecord, recorded: int = 0) -> None:
        """Take in one record; a newer one of the same key replaces the older.

        Args:
            recorded: when Kafka had it, ns since the epoch.
        """
        match record:
            case FunctionCode():
                self.codes[record.hash] = record.created
            case FunctionRecord():
                there, gone = (self.deleted, self.functions) if record.deleted else (self.functions, self.deleted)
                _remove_version(gone, f"{record.name}@{record.version}")
                there.setdefault(record.name, {})[record.version] = record
            case RuleRevision():
                self.revisions.setdefault(record.name, {})[record.revision] = record
            case RuleActivations():
                self._activate(record, recorded)

    def _activate(self, record: RuleActivations, recorded: int) -> None:
        self._forget_activations(record.number)
        self.activations[record.number] = tuple(one.rule for one in record.rules)
        # A broker's clock may be set back, and another broker's be behind: what comes later counts from later on.
        latest = next(reversed(self.changes.values())).at if self.changes else 0
        since = recorded if recorded >= latest else latest + 1
        self.changes[record.number] = Since(since, record.ends)
        for one in record.rules:
            self.timelines.setdefault(one.rule, []).append(
                Standing(since, record.number, record.action, record.principal, one)
            )

    def time_of(self, event: Moment) -> int:
        """Return the time by which an event meets revisions: when Kafka had it, or that of a change before it."""
        for change in reversed(self.changes.values()):
            if change.at <= event.recorded:
                break
            if change.is_before(event):
                return change.at
        return event.recorded

    def remove(self, key: bytes) -> None:
        """Take in a tombstone: a key of `upon.messages.registry_key` whose record was deleted."""
        kind, _, name = key.decode().partition("/")
        match kind:
            case "code":
                self.codes.pop(name, None)
            case "function":
                _remove_version(self.functions, name)
                _remove_version(self.deleted, name)
            case "rule":
                _remove_version(self.revisions, name)
            case "activations":
                self._forget_activations(int(name))

    def _forget_activations(self, number: int) -> None:
        self.changes.pop(number, None)
        for rule in self.activations.pop(number, ()):
            left = [one for one in self.timelines.get(rule, ()) if one.number != number]
            if left:
                self.timelines[rule] = left
            else:
                self.timelines.pop(rule, None)

    @property
    def last_number(self) -> int:
        """The number of the newest activations, 0 when there are none."""
        return max(self.activations, default=0)

    @property
    def rules(self) -> Mapping[str, Standing]:
        """How each rule that is not deleted stands now, by name."""
        return {name: timeline[-1] for name, timeline in self.timelines.items() if not timeline[-1].deleted}

    def standing(self, rule: str) -> Standing:
        """Return how a rule stands now.

        Raises:
            RuleNotFound: there is none of this name, or it is deleted; the message names what there is.
        """
        timeline = self.timelines.get(rule)
        if not timeline or timeline[-1].deleted:
            known = sorted(self.rules)
            listed = ", ".join(known[:NAMED]) or "none yet"
            more = f" and {len(known) - NAMED:,} more" if len(known) > NAMED else ""
            raise RuleNotFound(f"rule {rule!r} does not exist; there are: {listed}{more}")
        return timeline[-1]

    def standing_at(self, rule: str, at: int) -> Standing | None:
        """Return how a rule stood at a time (ns since the epoch, the broker's clock); None: it was not there yet."""
        timeline = self.timelines.get(rule, [])
        index = bisect_right(timeline, at, key=lambda one: one.since)
        return timeline[index - 1] if index else None

    def revision(self, rule: str, number: int) -> RuleRevision:
        """Return a rule's revision.

        Raises:
            RuleNotFound: no such rule or revision; the message names what there is.
        """
        revisions = self.revisions.get(rule, {})
        if number not in revisions:
            raise RuleNotFound(f"rule {rule!r} has no revision {number}; there are: {sorted(revisions) or 'none'}")
        return revisions[number]

    def apply_site(self, status: SiteStatus, heard: int) -> None:
        """Take in what a dispatcher says of its site, unless another has taken over from it.

        Args:
            heard: when, ns since the epoch on this machine's clock.
        """
        if not status.holds_after(self.sites.get(status.site)):
            return
        self.sites[status.site] = status
        self.heard[status.site] = heard

    def is_up(self, site: str, now: int) -> bool:
        """Whether a site counts as up: it says so, and its dispatcher was heard within `SITE_SILENT` s of `now` (ns).

        The one place where this is decided, for choosing a site and for showing it.
        """
        status = self.sites.get(site)
        return status is not None and status.state == "up" and now - self.heard[site] <= SITE_SILENT * 1e9

    def function(self, name: str, version: int | None = None) -> FunctionRecord:
        """Return a function's version, the newest when `version` is None.

        Raises:
            FunctionNotFound: no such name or version; the message names what there is, and says what was deleted.
        """
        versions, deleted = self.functions.get(name), self.deleted.get(name, {})
        if not versions:
            known = ", ".join(sorted(self.functions)) or "none yet"
            what = "is deleted" if deleted else "is not registered"
            raise FunctionNotFound(f"function {name!r} {what}; there are: {known}")
        found = versions.get(max(versions) if version is None else version)
        if found is None:
            what = (
                f"version {version} of function {name!r} is deleted"
                if version in deleted
                else (f"function {name!r} has no version {version}")
            )
            raise FunctionNotFound(f"{what}; there are: {sorted(versions)}")
        return found

    def next_version(self, name: str) -> int:
        """Return the number of a function's next version: one that none ever had, deleted ones included."""
        return 1 + max((*self.functions.get(name, {}), *self.deleted.get(name, {})), default=0)


def _remove_version(versions: dict[str, dict[int, R]], key: str) -> None:
    name, _, version = key.rpartition("@")
    versions.get(name, {}).pop(int(version), None)
    if not versions.get(name):
        versions.pop(name, None)


def split_function(text: str) -> tuple[str, int | None]:
    """Split ``name[@version]`` into name and version.

    Raises:
        FunctionNotFound: what follows ``@`` is no positive integer.
    """
    name, at, version = text.partition("@")
    if not at:
        return name, None
    if not (version.isascii() and version.isdigit() and len(version) <= 18 and int(version) >= 1):
        raise FunctionNotFound(f"function {text[:200]!r}: write name or name@version, version a positive integer")
    return name, int(version)
