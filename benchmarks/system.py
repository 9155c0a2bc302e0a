"""A system for the measurement: its own home, started cold, stopped at the end."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from upon import Executor


@dataclass(frozen=True, slots=True)
class System:
    """A running system: its home, the folder that its filesystem source watches, and its cold start in seconds."""

    home: Path
    incoming: Path
    cold_start: float

    def upon(self, *words: str) -> str:
        """Run a command of the CLI; return what it printed."""
        command = [sys.executable, "-m", "upon", *words, "--home", str(self.home)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.upon("status", "--json"))
        return status

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the processes of each part; the warm parent of the workers counts as the manager's."""
        by_part = {
            name: [psutil.Process(pid) for pid in part["pids"] if psutil.pid_exists(pid)]
            for name, part in self.status()["parts"].items()
        }
        workers = {one.pid for one in by_part["workers"]}
        parents = [one for manager in by_part["manager"] for one in manager.children(recursive=True)]
        by_part["manager"] += [one for one in parents if one.pid not in workers]
        return by_part


def cpu_of(process: psutil.Process) -> float:
    """Return the CPU seconds that a process has taken so far, with all its threads."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def running_system() -> Iterator[System]:
    """Start a system in an empty home; the clock runs from the command to the first result at an Executor."""
    with tempfile.TemporaryDirectory(prefix="upon-bench-") as folder:
        home, incoming = Path(folder) / "home", Path(folder) / "incoming"
        incoming.mkdir()
        sources = Path(folder) / "sources.yaml"
        sources.write_text(f"version: 1\nsources:\n  - {{name: incoming, kind: filesystem, path: {incoming}}}\n")
        command = [sys.executable, "-m", "upon"]
        began = time.monotonic()
        subprocess.run([*command, "up", "--detach", "--home", str(home), "--sources", str(sources)], check=True)
        try:
            with Executor(home=home) as executor:
                assert executor.submit(pow, 2, 10).result(timeout=60) == 1024
            yield System(home, incoming, time.monotonic() - began)
        finally:
            subprocess.run([*command, "down", "--home", str(home)], check=True)
