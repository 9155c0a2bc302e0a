"""One source in its thread, made anew when it fails: after a pause that grows from 0.5 to 60 s.

starting ──ready──▶ running ──stop──▶ stopped        a failure is logged once per kind of failure, and not with
   │ ▲                 │ └─returns──▶ ended           every attempt; `ConfigError` is no passing fault: such a
   │ └────pause────┐   │                              source is not tried again
   └───raises───▶ failing, or wrong
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from upon.errors import ConfigError, UponError
from upon.events import Event
from upon.logs import get_logger
from upon.triggers.checkpoint import Checkpoint
from upon.triggers.report import SourceReport, State
from upon.triggers.source import Context, Stopped, Then
from upon.triggers.sources_file import SourceSpec

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before a failed source is made anew."""
STEADY = 60.0
"""A source that ran for so many seconds was well: its next failure counts as the first."""

log = get_logger(__name__)
Publish = Callable[[Event, Then | None], None]


class Supervised:
    """A source that runs.

    Args:
        spec: what it is.
        publish: accept an event, as `Context.publish`.
        checkpoint: gives its checkpoint, the same whenever it is asked; raises SourceError.

    Attributes:
        settled: set once it is ready, has failed, or has ended.
        failure: why it is not running, while it is not.
    """

    def __init__(self, spec: SourceSpec, publish: Publish, checkpoint: Callable[[], Checkpoint]) -> None:
        self.spec, self.name = spec, spec.name
        self.settled = threading.Event()
        self.failure: BaseException | None = None
        self._publish, self._checkpoint = publish, checkpoint
        self._state: State = "starting"
        self._since = time.time_ns()
        self._events = self._last_event = 0
        self._stopping = threading.Event()
        self._log = log.bind(source=spec.name, kind=spec.config.kind)
        self._thread = threading.Thread(target=self._run, name=f"source-{spec.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to stop; `join` waits for it."""
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """Wait until it has stopped; return whether it has."""
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def report(self) -> SourceReport:
        """Return its state."""
        return SourceReport(
            name=self.name,
            kind=self.spec.config.kind,
            state=self._state,
            since=self._since,
            reason=str(self.failure) if self.failure is not None else "",
            events=self._events,
            last_event=self._last_event,
        )

    def _run(self) -> None:
        pause, said = FIRST_PAUSE, ""
        while not self._stopping.is_set():
            begun = time.monotonic()
            error = self._attempt()
            self.failure = error
            if error is None:
                self._enter("stopped" if self._stopping.is_set() else "ended")
                return
            self._enter("wrong" if isinstance(error, ConfigError) else "failing")
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
            context = Context(self._accept, self._checkpoint(), self._stopping, self._log, self._on_ready)
            self.spec.cls(self.spec.config, context).run()
        except Stopped:
            return None
        except Exception as error:  # a stranger's source may raise anything; none may stop the others
            return error
        if not self._stopping.is_set():
            self._log.info("the source has ended: there is no more input", action="end")
        return None

    def _accept(self, event: Event, then: Then | None = None) -> None:
        def safe() -> None:
            self._events += 1
            self._last_event = time.time_ns()
            if then is not None:
                then()

        self._publish(event, safe)

    def _on_ready(self) -> None:
        if self.failure is not None:
            self._log.info("the source runs again", action="recover")
        self.failure = None
        self._enter("running")

    def _enter(self, state: State) -> None:
        if state != self._state:
            self._state, self._since = state, time.time_ns()
        self.settled.set()

    def _say(self, error: BaseException) -> None:
        if isinstance(error, ConfigError):
            self._log.error(f"the source cannot run: {error}", action="fail")
        elif isinstance(error, UponError):
            self._log.warning(f"the source failed and will be tried again: {error}", action="fail")
        else:
            self._log.error("the source failed and will be tried again", action="fail", exc_info=error)
