"""A whole system for a test, started and stopped through the CLI as a user does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.commands import Said, called, process
from upon.cli.status import seen

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], what: str, timeout: float = 60.0) -> T:
    """Return what `condition` gives as soon as it is true; fail after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(pause(time.monotonic() - began))


def pause(took: float) -> float:
    """Return the seconds until a question is asked again that took `took` s: what costs much is asked seldom."""
    return min(0.25, max(0.02, 4 * took))


@dataclass(frozen=True, slots=True)
class System:
    """A system in `home`, with a filesystem source that watches `incoming`."""

    home: Path
    incoming: Path

    def run(self, *words: str, check: bool = True, timeout: float = 90.0) -> Said:
        """Run a command of the CLI in this home; those that start, stop or pickle something in an own process."""
        command = (*words, "--home", str(self.home))
        own = words[0] in ("up", "down", "restart") or words[:2] == ("functions", "register")
        done = process(*command, timeout=timeout) if own else called(*command)
        assert not check or done.returncode == 0, f"upon {' '.join(words)}: {done.returncode}\n{done.stderr}"
        return done

    def status(self) -> dict[str, Any]:
        """What `upon status --json` prints, without an interpreter of its own: tests ask again and again."""
        return seen(self.home)

    def pids(self, part: str) -> list[int]:
        return list(self.status()["parts"][part]["pids"])

    def wait_up(self, timeout: float = 60.0) -> dict[str, Any]:
        """Wait until all parts are up, workers included; return the status."""

        def up() -> dict[str, Any] | None:
            status = self.status()
            well = all(part["state"] in ("up", "external") for part in status["parts"].values())
            return status if well else None

        return wait_for(up, "all parts up", timeout)

    def kill(self, part: str) -> int:
        """Kill -9 a process of the part; return its pid."""
        pid = wait_for(lambda: self.pids(part), f"a process of {part}")[0]
        os.kill(pid, signal.SIGKILL)
        return pid


@contextmanager
def running(folder: Path, *options: str) -> Iterator[System]:
    """A system in a new home below `folder`; stopped at the end."""
    incoming = folder / "incoming"
    incoming.mkdir(parents=True)
    sources = folder / "sources.yaml"
    sources.write_text(f"version: 1\nsources:\n  - {{name: incoming, kind: filesystem, path: {incoming}}}\n")
    system = System(folder / "home", incoming)
    system.run("up", "--detach", "--sources", str(sources), *options, timeout=150)
    try:
        system.wait_up()
        yield system
    finally:
        system.run("down")
