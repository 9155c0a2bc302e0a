"""Several sources and their publisher, from start to stop; which sources, may change while they run.

wanted ──plan──▶ stop those that are gone or changed, start those that are new or changed, leave the others alone
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from upon.config import Settings
from upon.errors import UponError
from upon.events import Event
from upon.logs import get_logger
from upon.triggers.checkpoint import Checkpoint
from upon.triggers.publisher import Publisher
from upon.triggers.source import Then
from upon.triggers.sources_file import SourceSpec
from upon.triggers.supervised import Supervised

SOURCES_STOP, PUBLISHER_STOP = 1.5, 1.0
"""Seconds that the sources, and then the publisher, get to stop."""

log = get_logger(__name__)


def plan(running: Mapping[str, SourceSpec], wanted: Sequence[SourceSpec]) -> tuple[list[str], list[SourceSpec]]:
    """Return the names of the sources to stop, and those to start then. Pure."""
    kept = {spec.name for spec in wanted if running.get(spec.name) == spec}
    return [name for name in running if name not in kept], [spec for spec in wanted if spec.name not in kept]


class Sources:
    """The sources that run.

    Args:
        settings: the home, Kafka's address and the topics.
        on_event: called with each event once Kafka has it, from the publisher's thread.

    Attributes:
        running: by name.
    """

    def __init__(self, settings: Settings, on_event: Callable[[Event], None] | None = None) -> None:
        self.running: dict[str, Supervised] = {}
        self._settings, self._on_event = settings, on_event
        self._publisher: Publisher | None = None
        self._checkpoints: dict[str, Checkpoint] = {}

    def apply(self, wanted: Sequence[SourceSpec]) -> None:
        """Run these sources, and no others. Takes up to 1.5 s if some are to stop.

        Raises:
            ConfigError: no Kafka address is known.
        """
        stop, start = plan({name: one.spec for name, one in self.running.items()}, wanted)
        if start and self._publisher is None:
            self._publisher = Publisher(self._settings.need_kafka(), self._settings.topics)
        for name in stop:
            self.running[name].stop()
        self._join(SOURCES_STOP, stop)
        for name in stop:
            self._left(self.running.pop(name))
        for spec in start:
            self.running[spec.name] = self._supervised(spec)
            self.running[spec.name].start()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until Kafka answers and each source is ready or has failed; return whether so within `timeout` s."""
        until = time.monotonic() + timeout
        kafka = [self._publisher.connected] if self._publisher is not None else []
        return all(
            event.wait(max(0.0, until - time.monotonic()))
            for event in [*kafka, *(source.settled for source in self.running.values())]
        )

    def check(self) -> None:
        """Raise what ended the publisher unexpectedly, if anything did: nothing goes to Kafka any more."""
        if self._publisher is not None:
            self._publisher.check()

    def stop(self) -> None:
        """Stop the sources, then the publisher, then the checkpoints. Below 3 s, whatever hangs."""
        for source in self.running.values():
            source.stop()
        if not self._join(SOURCES_STOP / 2, self.running) and self._publisher is not None:
            self._publisher.refuse()  # one may be waiting for room
            self._join(SOURCES_STOP / 2, self.running)
        for source in self.running.values():
            self._left(source)
        if self._publisher is not None and not self._publisher.close(PUBLISHER_STOP):
            left = self._publisher.outstanding
            log.warning("events are not in Kafka yet; their sources repeat them", action="stop", events=left)
        for name, checkpoint in self._checkpoints.items():
            try:
                checkpoint.close()
            except UponError as error:
                log.error(str(error), action="stop", source=name)

    def _supervised(self, spec: SourceSpec) -> Supervised:
        return Supervised(spec, self._publish, lambda: self._checkpoint(spec.name))

    def _checkpoint(self, name: str) -> Checkpoint:
        """Return a source's checkpoint: one for all that ever run by that name.

        What a source published is acknowledged while its successor runs.
        """
        if name not in self._checkpoints:
            self._checkpoints[name] = Checkpoint(self._settings.places.sources / name)
        return self._checkpoints[name]

    def _join(self, timeout: float, names: Sequence[str] | Mapping[str, object]) -> bool:
        until = time.monotonic() + timeout
        return all(self.running[name].join(until - time.monotonic()) for name in names)

    def _left(self, source: Supervised) -> None:
        if not source.join(0):
            log.warning("a source does not stop; it is left", action="stop", source=source.name)

    def _publish(self, event: Event, then: Then | None = None) -> None:
        assert self._publisher is not None  # made before the first source
        if self._on_event is None:
            self._publisher.publish(event, then)
            return
        on_event = self._on_event

        def safe() -> None:
            if then is not None:
                then()
            on_event(event)

        self._publisher.publish(event, safe)
