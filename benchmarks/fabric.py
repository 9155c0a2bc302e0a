"""What the dispatcher's state machine costs: CPU time of a no-op, and of a heartbeat, by the number of managers.

    python -m benchmarks.fabric

No servers, no processes: inputs and instructions alone. Each turn reads a record of invocations, hears the outcomes of
those sent before, and that the results of the turn before are stored; managers answer at once. Medians of five runs.
"""

from __future__ import annotations

import gc
import statistics
import time
import uuid
from collections.abc import Iterator

from rich.console import Console

from benchmarks.machine import describe
from upon.dispatcher import protocol
from upon.dispatcher.decisions.instructions import (
    CodeKnown,
    Heard,
    Input,
    Instruction,
    Now,
    PublishResult,
    RecordRead,
    ResultsStored,
    Send,
)
from upon.dispatcher.decisions.state import State
from upon.dispatcher.protocol import Outcome, Ready, Results
from upon.messages import Invocation, InvocationBatch

TASKS = 20_000
RECORD = 500
SLOTS = 64
RUNS = 5
console = Console(highlight=False, width=120)


def site(managers: int) -> State:
    """Return a machine that knows so many managers and one function, warm everywhere."""
    state = State(session="b")
    state.handle([CodeKnown("c")], now())
    for number in range(managers):
        name = f"m{number}"
        state.handle([Heard(name, Ready(name, "h", 1, (), SLOTS, "3.11", ("c",)))], now())
    return state


def now() -> Now:
    return Now(time.monotonic(), time.time_ns())


def records() -> Iterator[RecordRead]:
    for offset in range(TASKS // RECORD):
        invocations = tuple(
            Invocation(id=str(uuid.uuid4()), code="c", function="noop", payload=bytes(20)) for _ in range(RECORD)
        )
        yield RecordRead(0, offset, InvocationBatch(site="s", group="g", submitted=5, invocations=invocations))


def answers(said: list[Instruction]) -> tuple[list[Input], int]:
    """Return what managers and Kafka say to these instructions, and how many results there were."""
    heard: list[Input] = []
    stored: list[str] = []
    for one in said:
        if isinstance(one, PublishResult):
            stored.append(one.result.id)
        elif isinstance(one, Send) and isinstance(one.message, protocol.Tasks):
            outcomes = (
                Outcome(task.id, task.attempt, "succeeded", b"r", started=1000, finished=2000, pid=7)
                for task in one.message.assignments
            )
            heard.append(Heard(one.manager, Results(tuple(outcomes))))
    return ([*heard, ResultsStored(tuple(stored))] if stored else heard), len(stored)


def a_task(managers: int) -> float:
    """Return CPU µs of the machine for one no-op, from its record to its commit."""
    state, waiting = site(managers), list(records())
    said: list[Instruction] = []
    took, done = 0.0, 0
    gc.collect()
    while done < TASKS or said:
        inputs, count = answers(said)
        done += count
        if waiting:
            inputs.append(waiting.pop(0))
        if not inputs:
            break
        began = time.thread_time()
        said = state.handle(inputs, now())
        took += time.thread_time() - began
    assert done == TASKS, f"{done} of {TASKS} tasks are done"
    return took / TASKS * 1e6


def a_heartbeat(managers: int) -> float:
    """Return CPU µs of the machine for one heartbeat."""
    state = site(managers)
    beats = [[Heard(f"m{number % managers}", protocol.Heartbeat(1))] for number in range(5000)]
    began = time.thread_time()
    for beat in beats:
        state.handle(beat, now())
    return (time.thread_time() - began) / len(beats) * 1e6


def main() -> None:
    """Measure and print."""
    console.print(describe())
    for managers in (1, 100, 2048):
        task = statistics.median(a_task(managers) for _ in range(RUNS))
        beat = statistics.median(a_heartbeat(managers) for _ in range(RUNS))
        console.print(f"{managers:>6,} managers x {SLOTS} slots: a no-op {task:5.1f} µs, a heartbeat {beat:4.1f} µs")


if __name__ == "__main__":
    main()
