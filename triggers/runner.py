"""The part `sources`: runs every source that a sources file names, each in its thread, all with one publisher.

    sources file ──▶ Supervised source ─┐
                     Supervised source ─┼─▶ Publisher ──▶ Kafka
                     …                 ─┘

Guarantees: a source that fails is made anew after a pause that grows from 0.5 to 60 s, while the others go on; its
failure is logged once per kind of failure, not with every attempt. A stop lasts less than 3 s: sources return, what
they published is given time to be safe, checkpoints are on the disk. Without any source the part is ready and idle.

Which file: the setting `sources`, else `sources.yaml` in the home, else none.
Not here: changing sources while they run; restart the part.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from upon.config import Home, Settings
from upon.errors import ConfigError, UponError
from upon.events import Event
from upon.logs import get_logger
from upon.part import Part
from upon.triggers.checkpoint import Checkpoint
from upon.triggers.publisher import Publisher
from upon.triggers.source import Context, Stopped, Then
from upon.triggers.sources_file import SourceSpec, read_sources_file, spec

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before a failed source is made anew."""
STEADY = 60.0
"""A source that ran for so many seconds was well: its next failure counts as the first."""
READY_WITHIN = 20.0
"""Seconds after which the part is ready even if a source is not: it may be that instrument's fault."""
SOURCES_STOP, PUBLISHER_STOP = 1.5, 1.0
"""Seconds that the sources, and then the publisher, get to stop."""

log = get_logger(__name__)
Publish = Callable[[Event, Then | None], None]


class Supervised:
    """One source in its thread, restarted when it fails.

    Attributes:
        settled: set once it is ready, has failed, or has ended.
        failure: why it is not running, while it is not.
    """

    def __init__(self, source: SourceSpec, home: Home, publish: Publish) -> None:
        self.name = source.name
        self.settled = threading.Event()
        self.failure: BaseException | None = None
        self._spec, self._publish = source, publish
        self._folder = home.sources / source.name
        self._stopping = threading.Event()
        self._log = log.bind(source=source.name, kind=source.config.kind)
        self._checkpoint: Checkpoint | None = None
        self._thread = threading.Thread(target=self._run, name=f"source-{source.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to stop; `join` waits for it."""
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """Wait until it has stopped; return whether it has."""
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def close(self) -> None:
        """Put the checkpoint on the disk and let it go, once nothing is acknowledged any more."""
        if self._checkpoint is not None:
            try:
                self._checkpoint.close()
            except UponError as error:
                self._log.error(str(error), action="stop")

    def _run(self) -> None:
        pause, said = FIRST_PAUSE, ""
        while not self._stopping.is_set():
            begun = time.monotonic()
            error = self._attempt()
            self.failure = error
            self.settled.set()
            if error is None:
                return
            if time.monotonic() - begun >= STEADY:
                pause, said = FIRST_PAUSE, ""
            if said != (said := f"{type(error).__name__}: {error}"):
                self._say(error)
            if isinstance(error, ConfigError):
                return
            self._stopping.wait(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _attempt(self) -> BaseException | None:
        """Run a new instance to its end; return why it failed, if it did."""
        try:
            # One for all attempts: what a failed instance published is acknowledged while the next one runs.
            if self._checkpoint is None:
                self._checkpoint = Checkpoint(self._folder)
            context = Context(self._publish, self._checkpoint, self._stopping, self._log, self._on_ready)
            self._spec.cls(self._spec.config, context).run()
        except Stopped:
            return None
        except Exception as error:  # a stranger's source may raise anything; none may stop the others
            return error
        if not self._stopping.is_set():
            self._log.info("the source has ended: there is no more input", action="end")
        return None

    def _on_ready(self) -> None:
        if self.failure is not None:
            self._log.info("the source runs again", action="recover")
        self.failure = None
        self.settled.set()

    def _say(self, error: BaseException) -> None:
        if isinstance(error, ConfigError):
            self._log.error(f"the source cannot run: {error}", action="fail")
        elif isinstance(error, UponError):
            self._log.warning(f"the source failed and will be tried again: {error}", action="fail")
        else:
            self._log.error("the source failed and will be tried again", action="fail", exc_info=error)


class Sources:
    """Several sources and their publisher, from start to stop.

    Args:
        sources: what to run.
        settings: the home, Kafka's address and the topics.
        on_event: called with each event once Kafka has it, from the publisher's thread.

    Raises:
        ConfigError: no Kafka address is known.
    """

    def __init__(
        self, sources: Sequence[SourceSpec], settings: Settings, on_event: Callable[[Event], None] | None = None
    ) -> None:
        self.publisher = Publisher(settings.need_kafka(), settings.topics)
        self._on_event = on_event
        self.running = [Supervised(source, settings.places, self._publish) for source in sources]
        for source in self.running:
            source.start()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until Kafka answers and each source is ready or has failed; return whether so within `timeout` s."""
        until = time.monotonic() + timeout
        waited_for = [self.publisher.connected, *(source.settled for source in self.running)]
        return all(event.wait(max(0.0, until - time.monotonic())) for event in waited_for)

    def stop(self) -> None:
        """Stop the sources, then the publisher, then the checkpoints. Below 3 s, whatever hangs."""
        for source in self.running:
            source.stop()
        if not self._join(SOURCES_STOP / 2):
            self.publisher.refuse()  # one may be waiting for room
            self._join(SOURCES_STOP / 2)
        for source in self.running:
            if not source.join(0):
                log.warning("a source does not stop; it is left", action="stop", source=source.name)
        if not self.publisher.close(PUBLISHER_STOP):
            left = self.publisher.outstanding
            log.warning("events are not in Kafka yet; their sources repeat them", action="stop", events=left)
        for source in self.running:
            source.close()

    def _join(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        return all(source.join(until - time.monotonic()) for source in self.running)

    def _publish(self, event: Event, then: Then | None = None) -> None:
        if self._on_event is None:
            self.publisher.publish(event, then)
            return
        on_event = self._on_event

        def safe() -> None:
            if then is not None:
                then()
            on_event(event)

        self.publisher.publish(event, safe)


def configured(settings: Settings) -> list[SourceSpec]:
    """Return the sources to run by the settings.

    Raises:
        ConfigError: the sources file is missing or wrong.
    """
    if settings.sources:
        return read_sources_file(Path(settings.sources))
    default = settings.places.path / "sources.yaml"
    return read_sources_file(default) if default.exists() else []


async def main(part: Part, settings: Settings) -> None:
    """Run the part `sources`."""
    specs = configured(settings)
    if not specs:
        part.ready(sources=[])
        await part.stopping.wait()
        return
    await _run(part, settings, specs, None)


async def watch(
    part: Part, settings: Settings, folders: list[Path], on_event: Callable[[Event], None], **options: Any
) -> None:
    """Watch folders in the foreground, until the part is stopped: what `upon watch DIR …` does.

    Args:
        part: its life cycle.
        settings: home, Kafka's address, prefix.
        folders: each becomes a filesystem source, whose name comes from its path.
        on_event: called with each event once Kafka has it, in the event loop.
        options: of kind `filesystem`, such as ``recursive=False`` or ``settle="5s"``; None counts as not given.

    Raises:
        ConfigError: a folder is not there, or an option is wrong.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; `upon watch` needs one that is there")
    specs = [spec("filesystem", {"name": _name_of(folder), "path": folder, **given}) for folder in folders]
    loop = asyncio.get_running_loop()

    def in_loop(event: Event) -> None:
        loop.call_soon_threadsafe(on_event, event)

    await _run(part, settings, specs, in_loop)


async def _run(
    part: Part, settings: Settings, specs: Sequence[SourceSpec], on_event: Callable[[Event], None] | None
) -> None:
    sources = Sources(specs, settings, on_event)
    try:
        ready = _in_thread(lambda: sources.wait_ready(READY_WITHIN))
        stopping = asyncio.ensure_future(part.stopping.wait())
        await asyncio.wait((ready, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not part.stopping.is_set():
            failing = {source.name: str(source.failure) for source in sources.running if source.failure is not None}
            part.ready(sources=[source.name for source in sources.running], failing=failing)
        await stopping
    finally:
        await _in_thread(sources.stop)


def _in_thread(work: Callable[[], object]) -> asyncio.Future[None]:
    """Run `work` in a daemon thread: unlike asyncio's own threads it does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def run() -> None:
        try:
            work()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish)

    threading.Thread(target=run, daemon=True).start()
    return done


def _name_of(folder: Path) -> str:
    """Return a source's name for a watched folder: readable, and the same whenever the folder is watched."""
    absolute = folder.absolute()
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in absolute.name).strip("-") or "root"
    mark = hashlib.blake2b(os.fsencode(absolute), digest_size=4).hexdigest()
    return f"watch-{readable[:40]}-{mark}"
