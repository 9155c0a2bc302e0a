"""The work during which a part is killed: 200 file drops and 200 SDK tasks, and what must hold afterwards."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path

from tests.systems import System, wait_for
from upon import Client, Executor
from upon.api import Task

FILES = 200
TASKS = 200
MIDDLE = 40
"""Results that have come before the fault."""

RULE = """
version: 1
rules:
  - name: {name}
    upon: {{type: [upon.file.ready], subject: [{{prefix: "{folder}/"}}]}}
    run: {{function: load.work, site: local, args: ["${{subject}}", "{effects}"]}}
"""


def tracing(pause: float) -> Callable[[str, str], str]:
    """Return a function that travels by value (it is made here: workers cannot import the tests)."""

    def work(what: str, effects: str) -> str:
        """Leave a trace of each execution, slowly enough that a fault meets some under way; return `what`."""
        import os
        import time

        descriptor = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{what}\n".encode())
        os.close(descriptor)
        time.sleep(pause)
        return what

    return work


work = tracing(0.01)


class Outcome:
    """What is left after the fault: tasks by file, values by SDK task, executions by either."""

    def __init__(self, tasks: list[Task], values: list[str], effects: Path) -> None:
        self.tasks = tasks
        self.values = values
        self.executions = Counter(effects.read_text().splitlines())


def under_fault(system: System, name: str, fault: Callable[[], object]) -> Outcome:
    """Drop files and submit tasks, cause the fault in the middle, and wait until all is done."""
    folder, effects = system.incoming / name, system.home.parent / f"{name}.effects"
    folder.mkdir()
    rules = system.home.parent / f"{name}.yaml"
    rules.write_text(RULE.format(name=name, folder=folder, effects=effects))
    with Client(home=system.home) as client:
        client.register(work, name="load.work")
        system.run("rules", "apply", str(rules))
        paths = [folder / f"frame_{number:03}.dat" for number in range(FILES)]
        dropping = threading.Thread(target=lambda: [path.write_bytes(b"data") for path in paths])
        with Executor(home=system.home) as executor:
            dropping.start()
            futures = [executor.submit(work, f"{name}-{number}", str(effects)) for number in range(TASKS)]
            for done, _ in enumerate(as_completed(futures, timeout=120), start=1):
                if done == MIDDLE:
                    break
            fault()
            values = [future.result(timeout=180) for future in futures]
        dropping.join()
        tasks = wait_for(lambda: _all_done(client, name), f"a result for each of {FILES} files", timeout=180)
    return Outcome(tasks, values, effects)


def _all_done(client: Client, rule: str) -> list[Task] | None:
    from upon.errors import ServiceUnavailable

    try:
        tasks = client.tasks(rule=rule, limit=1000)
    except ServiceUnavailable:
        return None
    done = {task.event.subject for task in tasks if task.event and task.status == "succeeded"}
    return tasks if len(done) == FILES else None


def assert_nothing_lost_or_doubled(outcome: Outcome, name: str) -> None:
    """Each file has exactly one task, which succeeded; each future its own value."""
    assert outcome.values == [f"{name}-{number}" for number in range(TASKS)]
    assert all(task.status == "succeeded" for task in outcome.tasks)
    assert Counter(task.event.subject for task in outcome.tasks if task.event).most_common(1)[0][1] == 1
    assert len(outcome.tasks) == FILES
    assert len(outcome.executions) == FILES + TASKS


def assert_executed_once(outcome: Outcome) -> None:
    """Where no worker was hurt, nothing ran twice."""
    assert {what: count for what, count in outcome.executions.items() if count > 1} == {}
