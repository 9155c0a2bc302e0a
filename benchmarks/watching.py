"""Functions run by events: how long after a file is complete, or an event is published, the function has begun."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.system import System
from upon import Client, Event
from upon.api import TaskChanged
from upon.events import time_ns

EVENTS = 300
RULES = """
version: 1
rules:
  - name: bench-file
    upon: {type: [upon.file.ready], subject: [{suffix: .dat}]}
    run: {function: bench.noop, site: local, args: ["${subject}"]}
  - name: bench-event
    upon: {type: [bench.published]}
    run: {function: bench.noop, site: local, args: ["${subject}"]}
"""


def noop(subject: str) -> str:
    """Return what comes in: all that is measured is the way."""
    return subject


def measure(system: System) -> tuple[list[float], list[float], list[float], dict[str, list[float]]]:
    """Return, in ms: file complete → started, file complete → result here, publish → started; the last one's hops."""
    rules = system.home / "bench-rules.yaml"
    rules.write_text(RULES)
    with Client(home=system.home) as client:
        client.register(noop, name="bench.noop")
        system.upon("rules", "apply", str(rules))
        changes = client.watch(tasks=True)
        started, finished, published = [], [], []
        hops: dict[str, list[float]] = {}
        for number in range(EVENTS):
            path = system.incoming / f"frame_{number:04}.dat"
            complete = _write(path)
            task, arrived = _wait(changes, str(path))
            if number:  # the first loads the function
                started.append((time_ns(task.started or "") - complete) / 1e6)
                finished.append((arrived - complete) / 1e6)
        for number in range(EVENTS):
            subject = f"sample-{number}"
            began = time.time_ns()
            client.publish(Event(type="bench.published", source="/bench", subject=subject))
            task, arrived = _wait(changes, subject)
            published.append((time_ns(task.started or "") - began) / 1e6)
            for hop in client.task(task.id).timings:
                hops.setdefault(hop.name, []).append((time_ns(hop.at) - began) / 1e6)
            hops.setdefault("result here", []).append((arrived - began) / 1e6)
        changes.close()
    return started, finished, published, hops


def _write(path: Path) -> int:
    with path.open("wb") as file:
        file.write(b"x" * 10_000)
    return time.time_ns()


def _wait(changes, subject: str):  # type: ignore[no-untyped-def]
    while True:
        match changes.next(timeout=30):
            case None:
                raise TimeoutError(f"no result for {subject} after 30 s")
            case TaskChanged(task=task) if task.status == "succeeded" and task.event and task.event.subject == subject:
                return task, time.time_ns()
