"""A worker process as the pool sees it, and what follows from that. Pure data and functions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from upon.dispatcher.protocol import STARTED_AFTER, Assignment, Begun
from upon.endpoint.decisions.endings import cancelled, died, out_of_memory, timed_out
from upon.endpoint.decisions.instructions import Died, Ended, Instruction

NOWHERE = -1
"""A worker that is in no place of an index."""
Reason = Literal["", "timeout", "cancel", "confused", "retired", "memory", "stop"]


@dataclass(slots=True)
class Worker:
    """A worker process as the pool sees it."""

    number: int
    pid: int = 0
    up: bool = False
    dying: Reason = ""  # why it was killed
    victim: int = -1  # seq of the task it was killed for
    next_seq: int = 0
    ahead: deque[tuple[int, Assignment]] = field(default_factory=deque)  # given and not begun, in order
    ahead_bytes: int = 0
    codes: set[str] = field(default_factory=set)  # what it was sent
    lacks: str = ""  # the code it waits for
    running: Assignment | None = None
    seq: int = 0  # of what runs
    since: float = 0.0  # when that began, monotonic s
    started: int = 0  # the same, ns since the epoch
    deadline: float = 0.0  # monotonic s; 0 = none
    told: bool = False  # Slow was said
    resting: bool = False  # another worker's task has its core
    capped: bool = False  # the kernel sees to it that its tasks keep to their memory
    used: int = 0  # bytes of memory, when that was more than its task may have
    load: int = NOWHERE  # its place in `Rooms`: the tasks it holds
    quick: int = NOWHERE  # and the tasks ahead, while its task may be a quick one


def begun(worker: Worker, now: float) -> Begun:
    """Return what is said of a task that runs; `now` in monotonic s."""
    task = worker.running
    assert task is not None
    return Begun(task.id, task.attempt, worker.started, worker.pid, now - worker.since)


def ending(worker: Worker, task: Assignment, exitcode: int, output: str, now: float) -> Instruction:
    """Return what becomes of the task that ran in a worker which has ended."""
    ran = now - worker.since
    if worker.victim == worker.seq and worker.dying == "timeout":
        return Ended(timed_out(task, pid=worker.pid, started=worker.started, ran=ran, output=output))
    if worker.victim == worker.seq and worker.dying == "cancel":
        return Ended(cancelled(task, pid=worker.pid, started=worker.started, ran=ran, output=output))
    if worker.victim == worker.seq and worker.dying == "memory":
        return Ended(out_of_memory(task, worker.used, pid=worker.pid, started=worker.started, ran=ran, output=output))
    why = _KILLED_BY_US.get(worker.dying, "")
    pid, started, blame = worker.pid, worker.started, worker.dying in ("", "confused")
    return Died(died(task, why, pid=pid, exitcode=exitcode, started=started, ran=ran, output=output, blame=blame))


_KILLED_BY_US = {
    "timeout": "was killed because of the task before, which ran too long,",
    "cancel": "was killed because of the task before, which was cancelled,",
    "memory": "was killed because of the task before, which took too much memory,",
    "confused": "sent what it should not (did the function write to descriptors it did not open?) and was killed",
    "retired": "was replaced because of what the task before had left",
    "stop": "was killed because its manager stopped",
}


def bounded(workers: Iterable[Worker]) -> list[tuple[int, int, int]]:
    """Return which workers run a task whose memory is bounded, and not by the kernel: number, process id, bytes."""
    running = ((worker, worker.running) for worker in workers if worker.running is not None)
    return [
        (worker.number, worker.pid, task.resources.memory)
        for worker, task in running
        if task.resources is not None and task.resources.memory and not worker.capped
    ]


def next_event(worker: Worker) -> float:
    """Return when `tick` has something to do for this worker."""
    if worker.running is None:
        return float("inf")
    slow = float("inf") if worker.told else worker.since + STARTED_AFTER
    return min(slow, worker.deadline or float("inf"))
