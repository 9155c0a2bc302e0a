"""The Kafka topics: their names, keys, partitions and settings. Names are made here and nowhere else.

    events                every event; key = partitionkey extension, else subject
    invocations.<site>    batches for one site; key = function hash
    control.<site>        cancel, drain: never behind a backlog
    results               result batches; key = group
    output                what tasks have printed so far, for an hour; key = site
    registry   compacted  functions, rules, sites; key = kind/name; only the service writes it
    sites      compacted  what each dispatcher says of itself; key = site
    choices               which of several candidate sites work went to; the first choice counts
    deadletter            what could not be processed, with its reason

A prefix (default ``upon``) lets several deployments share a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from upon.errors import ConfigError
from upon.messages import MAX_RECORD

SITE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,80}")

# The broker's clock stamps what is consumed by time: an instrument's may be hours off, and then Kafka refuses it.
_LARGE = {"max.message.bytes": str(MAX_RECORD), "message.timestamp.type": "LogAppendTime"}
_COMPACTED = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.ms": "3600000"}

# Read whole at each start of a stream worker; a choice has about 50 bytes.
_BOUNDED = {"retention.bytes": str(64 * 1024 * 1024), "segment.bytes": str(16 * 1024 * 1024),
            "message.timestamp.type": "LogAppendTime"}  # fmt: skip

# For people who look now: what a task printed in the end is in its result.
_SOON_GONE = {"retention.ms": "3600000", "segment.ms": "600000", **_BOUNDED}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it is created: name, number of partitions, and settings over the broker's own."""

    name: str
    partitions: int = 1
    config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one deployment.

    Args:
        prefix: first part of every name, default ``upon``.

    Raises:
        ConfigError: the prefix has characters that Kafka does not allow.
    """

    prefix: str = "upon"

    def __post_init__(self) -> None:
        if not PREFIX.fullmatch(self.prefix):
            raise ConfigError(f"prefix {self.prefix!r}: use letters, digits, '.', '_' and '-', at most 81")

    @property
    def events(self) -> str:
        return f"{self.prefix}.events"

    @property
    def results(self) -> str:
        return f"{self.prefix}.results"

    @property
    def output(self) -> str:
        return f"{self.prefix}.output"

    @property
    def registry(self) -> str:
        return f"{self.prefix}.registry"

    @property
    def sites(self) -> str:
        return f"{self.prefix}.sites"

    @property
    def choices(self) -> str:
        return f"{self.prefix}.choices"

    @property
    def deadletter(self) -> str:
        return f"{self.prefix}.deadletter"

    def invocations(self, site: str) -> str:
        return f"{self.prefix}.invocations.{checked_site(site)}"

    def control(self, site: str) -> str:
        return f"{self.prefix}.control.{checked_site(site)}"

    def site_of(self, topic: str) -> str | None:
        """Return the site whose invocations topic this is, or None."""
        head = f"{self.prefix}.invocations."
        return topic[len(head) :] if topic.startswith(head) else None

    def shared(self, partitions: int = 4) -> list[TopicSpec]:
        """Return the topics every deployment has, whatever its sites."""
        return [
            TopicSpec(self.events, partitions, _LARGE),
            TopicSpec(self.results, partitions, _LARGE),
            TopicSpec(self.output, 1, _SOON_GONE),
            TopicSpec(self.registry, 1, {**_COMPACTED, **_LARGE}),
            TopicSpec(self.sites, 1, _COMPACTED),
            TopicSpec(self.choices, 1, _BOUNDED),
            TopicSpec(self.deadletter, 1, _LARGE),
        ]

    def spec_of(self, name: str, partitions: int = 4) -> TopicSpec | None:
        """Return how a topic of this deployment is made; None if it is none of its topics."""
        parts = name.removeprefix(f"{self.prefix}.").partition(".")
        site = parts[2] if parts[0] in ("invocations", "control") and SITE_NAME.fullmatch(parts[2]) else None
        specs = self.shared(partitions) if site is None else self.of_site(site, partitions)
        return next((spec for spec in specs if spec.name == name), None)

    def of_site(self, site: str, partitions: int = 4) -> list[TopicSpec]:
        """Return the topics that one site needs."""
        return [TopicSpec(self.invocations(site), partitions, _LARGE), TopicSpec(self.control(site), 1)]


def kept(specs: Iterable[TopicSpec], seconds: float, bytes_: int) -> dict[str, dict[str, str]]:
    """Return the settings that limit what Kafka keeps, by topic.

    Compacted topics keep the newest of each key, and one that has a bound of its own keeps that.

    Args:
        seconds, bytes_: how long, and how much in each partition; 0 = no limit.
    """
    limits = {
        "retention.ms": str(int(seconds * 1000)) if seconds else "-1",
        "retention.bytes": str(bytes_) if bytes_ else "-1",
    }
    own = ("retention.bytes", "retention.ms")
    return {
        spec.name: limits
        for spec in specs
        if spec.config.get("cleanup.policy") != "compact" and not any(name in spec.config for name in own)
    }


def origin_of(topic: str, partition: int, offset: int) -> str:
    """Return how a record's place in Kafka is written: ``topic/partition/offset``."""
    return f"{topic}/{partition}/{offset}"


def place_of(origin: str) -> tuple[str, int, int] | None:
    """Return topic, partition and offset of what `origin_of` wrote; None for what it did not."""
    topic, *numbers = origin.rsplit("/", 2)
    if not topic or len(numbers) != 2 or not all(one.isascii() and one.isdecimal() for one in numbers):
        return None
    return topic, int(numbers[0]), int(numbers[1])


def checked_site(site: str) -> str:
    """Return `site` if it can name a site.

    Raises:
        ConfigError: it cannot: a site's name becomes part of a topic's name.
    """
    if not SITE_NAME.fullmatch(site):
        raise ConfigError(f"site {site!r}: use lower-case letters, digits and '-', at most 63, first not '-'")
    return site
