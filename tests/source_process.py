"""The part `sources` in a process of its own, as a supervisor starts it, to be stopped or killed by a test."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.systems import wait_for
from upon.topics import Topics

PATIENCE = 15.0
"""Seconds that the sources get to stop: many times what they need, so that who is left behind does hang."""
MAIN = (
    "import sys; from upon.config import Settings; from upon.part import run_part\n"
    "from upon.triggers import sources; from upon.triggers.runner import main\n"
    f"sources.SOURCES_STOP = {PATIENCE}\n"
    "sys.exit(run_part('sources', Settings.load(sys.argv[1]), main, needs_kafka=False))"
)


class SourceProcess:
    """One process; `log` is the file that its standard error goes to."""

    def __init__(self, home: Path, kafka: str, topics: Topics, sources: str, **environment: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        (home / "sources.yaml").write_text(sources)
        self.log = home / "sources.log"
        self._command = [sys.executable, "-c", MAIN, str(home)]
        self._environment = {**os.environ, "UPON_KAFKA": kafka, "UPON_PREFIX": topics.prefix, **environment}

    def start(self) -> None:
        """Start it, and wait until it says that it is ready: at once, but for a Kafka or an instrument that is away."""
        reader, writer = os.pipe()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env={**self._environment, "UPON_READY_FD": str(writer)},
                stderr=log,
                pass_fds=[writer],
            )
        os.close(writer)
        ready, _, _ = select.select([reader], [], [], 60)
        line = os.read(reader, 65536) if ready else b""
        os.close(reader)
        assert line, f"the sources are not ready:\n{self.log.read_text()}"
        self.info: dict[str, Any] = json.loads(line)

    def start_without_kafka(self) -> None:
        """Start it, and wait until its sources watch."""
        watched = len(self.logged("watch")) if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=self._environment, stderr=log)
        wait_for(lambda: len(self.logged("watch")) > watched, "that the sources watch")

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """SIGTERM, and wait for the end: each source stops, none is left behind."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(2 * PATIENCE) == 0, self.log.read_text()
        assert not [line for line in self.logged("stop") if line["event"].startswith("a source does not stop")]

    def logged(self, action: str) -> list[dict[str, Any]]:
        """Return the log's lines of an action."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("action") == action]


@contextmanager
def sources_running(
    home: Path, kafka: str, topics: Topics, sources: str, **environment: str
) -> Iterator[SourceProcess]:
    running = SourceProcess(home, kafka, topics, sources, **environment)
    with _ended(running):
        running.start()
        yield running


@contextmanager
def sources_without_kafka(home: Path, kafka: str, topics: Topics, sources: str) -> Iterator[SourceProcess]:
    running = SourceProcess(home, kafka, topics, sources)
    with _ended(running):
        running.start_without_kafka()
        yield running


@contextmanager
def _ended(running: SourceProcess) -> Iterator[None]:
    try:
        yield
    finally:
        if running.process.poll() is None:
            running.kill()
