"""How a task ends: as its function did, or because it ran too long, took too much, was cancelled, or its worker died.

Pure.
"""

from __future__ import annotations

import contextlib
import signal

from msgspec.structs import replace

from upon import serialize
from upon.dispatcher.protocol import MAX_OUTCOME, Assignment, Death, Outcome
from upon.dispatcher.wire import outcome_bytes
from upon.endpoint.channel import Done
from upon.errors import PayloadTooLarge, TaskCancelled, TaskError, TaskOutOfMemory, TaskTimeout

STORY_OUTPUT = 2000
"""Characters of a dead worker's last output that its story has; a crash's traceback stands there."""


def ended(task: Assignment, done: Done, pid: int) -> Outcome:
    """Return the outcome of a task whose function has ended."""
    return Outcome(
        task.id,
        task.attempt,
        "succeeded" if done.failure is None else "failed",
        done.payload,
        done.failure,
        done.bad_items,
        done.preview,
        done.stdout,
        done.started,
        done.finished,
        pid,
    )


def timed_out(task: Assignment, *, pid: int, started: int, ran: float, output: str) -> Outcome:
    """Return the outcome of a task that was killed because it ran longer than its timeout (`ran`, s)."""
    error = TaskTimeout(
        f"{task.function or 'the function'} ran for {ran:.1f} s and its timeout is {task.timeout:g} s, so its "
        f"process group was killed: raise the timeout, or make the function faster"
    )
    return _stopped(task, error, pid=pid, started=started, ran=ran, output=output)


def out_of_memory(task: Assignment, used: int, *, pid: int, started: int, ran: float, output: str) -> Outcome:
    """Return the outcome of a task that was killed because it took more memory than it may (`used`, bytes)."""
    limit = task.resources.memory if task.resources is not None else 0
    error = TaskOutOfMemory(
        f"{task.function or 'the function'} took {used / 2**20:,.0f} MiB of memory after {ran:.1f} s and may take "
        f"{limit / 2**20:,.0f} MiB, so its process group was killed: ask for more (options(memory=…)), or take less"
    )
    return _stopped(task, error, pid=pid, started=started, ran=ran, output=output)


def cancelled(task: Assignment, *, pid: int = 0, started: int = 0, ran: float = 0.0, output: str = "") -> Outcome:
    """Return the outcome of a task that somebody cancelled; `started` 0 = it had not begun."""
    when = f"after it had run for {ran:.1f} s; its process group was killed" if started else "before it began"
    error = TaskCancelled(f"{task.function or 'the task'} was cancelled {when}")
    return _stopped(task, error, pid=pid, started=started, ran=ran, output=output)


def died(
    task: Assignment, why: str, *, pid: int, exitcode: int, started: int, ran: float, output: str, blame: bool = True
) -> Death:
    """Return the death of a task whose worker ended under it.

    Args:
        why: if the manager had a hand in it; else the exit code tells.
        exitcode: minus the signal's number if a signal ended it.
        ran: s.
        blame: whether it was the task's own doing, for all that is known.
    """
    story = f"worker {pid} {why or exit_story(exitcode)} while it ran {task.function or 'a function'}, {ran:.1f} s in"
    if output.strip():
        story += f"; it had printed: {output.strip()[-STORY_OUTPUT:]}"
    return Death(task.id, task.attempt, story, pid, exitcode, started, started + int(ran * 1e9), blame)


def bounded(outcome: Outcome) -> Outcome:
    """Return an outcome that a message can hold: itself, or the failure that says that it is too large."""
    if (size := outcome_bytes(outcome)) <= MAX_OUTCOME:
        return outcome
    error = PayloadTooLarge(
        f"the result with its failures and output is {size:,} bytes, the limit is {MAX_OUTCOME:,}: write to a file "
        "instead"
    )
    failed = serialize.dump_failure(error)
    stdout = outcome.stdout[-STORY_OUTPUT:]
    return replace(outcome, status="failed", payload=b"", failure=failed, bad_items=(), preview="", stdout=stdout)


def exit_story(exitcode: int) -> str:
    """Say how a process ended."""
    if exitcode >= 0:
        return f"exited by itself with code {exitcode} (os._exit, or a library that ended the process)"
    name = f"signal {-exitcode}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-exitcode).name
    hint = " (kill -9, or the system was out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _stopped(task: Assignment, error: TaskError, *, pid: int, started: int, ran: float, output: str) -> Outcome:
    return Outcome(
        task.id,
        task.attempt,
        "cancelled" if isinstance(error, TaskCancelled) else "failed",
        failure=serialize.dump_failure(error),
        stdout=output,
        started=started,
        finished=started + int(ran * 1e9) if started else 0,
        pid=pid,
    )
