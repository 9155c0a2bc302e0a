"""Attempts: a task given to a manager, and how that ends.

    place ─▶ assigned ─▶ started ─▶ outcome ─┬─ final ─▶ settle ─▶ finish
                │           │                └─ to be retried ─▶ again
                └───────────┴─▶ death, lose ─▶ again, or fail with the story

Pure: a part of the state machine (`upon.dispatcher.state`), over its book.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from upon.chains import to_environment
from upon.dispatcher import protocol
from upon.dispatcher.book import Book
from upon.dispatcher.instructions import PublishResult, PublishStarted, SendCode, Step
from upon.dispatcher.placement import Placement
from upon.dispatcher.protocol import Assignment, Attempt, Outcome
from upon.dispatcher.stragglers import UsualTimes
from upon.dispatcher.tasks import (
    HELD,
    MAX_UNSTARTED_LOSSES,
    Task,
    failure,
    instant,
    lost_failure,
    result_of,
    retry_delay,
)
from upon.errors import FunctionNotFound, TaskCancelled
from upon.messages import Failure, Started, Status

CODE_PATIENCE = 15.0
"""Seconds an invocation waits for its function's code: registry and invocations are different topics."""
STORY_LINES = 20
"""Lines of a task's story kept."""


class Attempts:
    """The part of the state machine that follows attempts.

    Args:
        book, step: the state machine's.
        placement: who gets what.
        hold_until: monotonic s before which nothing is placed.
        timeout: s that a task may run which names no timeout itself; 0 = without end.
        random: numbers from 0 to 1, for the jitter of backoffs.
    """

    def __init__(
        self,
        book: Book,
        step: Step,
        placement: Placement,
        *,
        hold_until: float,
        timeout: float,
        random: Callable[[], float],
    ) -> None:
        self.book, self.step, self.placement = book, step, placement
        self.usual = UsualTimes()
        self.hold_until, self._timeout, self._random = hold_until, timeout, random

    def queue(self, task: Task, *, first: bool = False) -> None:
        """Let a task wait for a manager, or first for its code."""
        if task.invocation.code in self.book.codes:
            self.book.move(task, "ready", first=first)
        else:
            task.due = self.step.now.mono + CODE_PATIENCE
            self.book.move(task, "needs_code")

    def give_up_code(self, task: Task) -> None:
        """Its code has not come in time."""
        invocation = task.invocation
        message = (
            f"the code of {invocation.function or 'the function'} ({invocation.code[:12]}…) is not in the "
            f"registry after {CODE_PATIENCE:.0f} s; register the function again"
        )
        self.book.move(task, "done")
        self.finish(task, "failed", failure=failure(FunctionNotFound, message))

    def adopt(self, task: Task, manager: str, attempt: int) -> None:
        """A manager has this task already: leave it there."""
        task.manager, task.attempt, task.started, task.pid = manager, attempt, 0, 0
        self.book.move(task, "assigned")

    def place(self) -> None:
        """Give ready tasks to managers that have room."""
        book = self.book
        if not book.ready or not book.managers or self.step.now.mono < self.hold_until:
            return
        for manager, tasks in self.placement.place(book.ready.values(), book.managers.values()):
            for task in tasks:
                task.manager, task.attempt = manager.id, task.attempt + 1
                task.dispatched, task.started, task.pid = self.step.now.wall, 0, 0
                book.move(task, "assigned")
                code = task.invocation.code
                if code not in manager.warm:
                    manager.warm.add(code)
                    self.step.add(SendCode(manager.id, code))
            for batch in _batches(tasks, self._timeout):
                self.step.send(manager.id, protocol.Tasks(tuple(batch)))

    def _current(self, manager: str, id: str, attempt: int) -> Task | None:
        """Return the task if this is its attempt under way."""
        task = self.book.tasks.get(id)
        if task is None or task.state not in HELD or task.manager != manager or task.attempt != attempt:
            return None
        return task

    def started(self, manager: str, begun: protocol.Begun) -> None:
        task = self._current(manager, begun.id, begun.attempt)
        if task is None or task.state != "assigned":
            return
        task.started, task.pid = begun.started, begun.pid
        task.since = self.step.now.mono - max(0.0, begun.ran)
        if task.spared:
            task.cancelled = task.spared = False
        self.book.move(task, "running")
        worker = f"{manager}/{begun.pid}"
        started = Started(id=task.id, started=begun.started, attempt=task.starts + 1, worker=worker, group=task.group)
        self.step.add(PublishStarted(task.group, started))

    def outcome(self, manager: str, outcome: Outcome) -> None:
        attempt = Attempt(outcome.id, outcome.attempt)
        task = self.book.tasks.get(outcome.id)
        if task is None:
            if outcome.id in self.book.done or not self.book.keep_early(manager, outcome):
                self.step.send(manager, protocol.Stored((attempt,)))
        elif task.state == "done":
            self.book.tell.setdefault(task.id, []).append((manager, attempt))
        elif self._current(manager, *attempt):
            self.settle(task, manager, outcome)
        elif outcome.status == "succeeded":
            if task.state in HELD:
                self.step.send(task.manager, protocol.Cancel((Attempt(task.id, task.attempt),)))
            self.settle(task, manager, outcome)
        else:
            self.step.send(manager, protocol.Stored((attempt,)))

    def settle(self, task: Task, manager: str, outcome: Outcome) -> None:
        """An attempt has ended: final, or tried again."""
        task.starts += 1
        succeeded = outcome.status == "succeeded"
        if succeeded and outcome.finished >= outcome.started > 0:
            seconds = (outcome.finished - outcome.started) / 1e9
            self.placement.observe(task.invocation.code, seconds)
            self.usual.observe(task.invocation.code, seconds, task.invocation.items)
        if outcome.status == "failed" and outcome.failure is not None and not task.cancelled:
            delay = retry_delay(task.invocation.retry, task.starts, outcome.failure.kinds, self._random())
            if delay is not None:
                if task.state not in HELD:  # an early outcome of a task that was read just now
                    task.manager, task.attempt = manager, outcome.attempt
                    self.queue(task)
                else:
                    self._again(task, delay)
                self.step.send(manager, protocol.Stored((Attempt(task.id, outcome.attempt),)))
                return
        self.book.move(task, "done")
        task.manager, task.attempt = manager, outcome.attempt
        task.started, task.pid = outcome.started, outcome.pid
        self.book.tell[task.id] = [(manager, Attempt(task.id, outcome.attempt))]
        self.finish(
            task,
            outcome.status,
            failure=outcome.failure,
            payload=outcome.payload,
            finished=outcome.finished,
            bad_items=outcome.bad_items,
            preview=outcome.preview,
            stdout=outcome.stdout,
        )

    def death(self, manager: str, death: protocol.Death) -> None:
        task = self._current(manager, death.id, death.attempt)
        if task is not None:
            task.pid = death.pid or task.pid
            task.started = death.started or task.started
            began = death.started > 0 or task.state == "running"
            self.lose(task, death.story, began=began, finished=death.finished)

    def lose(self, task: Task, story: str, *, began: bool, blame: bool = True, finished: int = 0) -> None:
        """An attempt is lost: try again, or fail with the story of all attempts.

        One that had not begun, or is not to blame, has had nothing of its manager: it keeps its place, in front.
        One that had begun has had its turn.
        """
        where = f"{task.manager}/{task.pid}" if task.pid else task.manager
        line = f"attempt {task.attempt} on {where} at {instant(finished or self.step.now.wall)}: {story}"
        task.story = [*task.story, line][-STORY_LINES:]
        task.starts += began and blame
        task.losses += not began and blame
        if task.cancelled:
            self.finish_cancelled(task, f"while it ran; {story}")
            return
        lost = lost_failure(task)
        delay: float | None = 0.0
        if began and blame:
            delay = retry_delay(task.invocation.retry, task.starts, lost.kinds, self._random())
        elif task.losses > MAX_UNSTARTED_LOSSES:
            delay = None
        if delay is not None:
            self._again(task, delay, first=not (began and blame))
            return
        self.step.tell("warning", lost.message, "task_lost", id=task.id)
        self.book.move(task, "done")
        self.finish(task, "failed", failure=lost, finished=finished)

    def _again(self, task: Task, delay: float, *, first: bool = False) -> None:
        """Back to the queue, at once or after a wait.

        A retry goes behind all that waits: in front, a few tasks that keep failing would keep a site for themselves.
        """
        if delay > 0:
            task.due = self.step.now.mono + delay
            self.book.move(task, "retrying")
        else:
            self.queue(task, first=first)

    def finish_cancelled(self, task: Task, when: str) -> None:
        self.book.move(task, "done")
        self.finish(task, "cancelled", failure=failure(TaskCancelled, f"cancelled {when}", task.story))

    def finish(
        self,
        task: Task,
        status: Status,
        *,
        failure: Failure | None = None,
        payload: bytes = b"",
        finished: int = 0,
        **more: object,
    ) -> None:
        """Publish the result of a task that has just become done; its arguments are needed no more."""
        result = result_of(
            task, status, self.step.now.wall, failure=failure, payload=payload, finished=finished, **more
        )
        task.invocation = msgspec.structs.replace(task.invocation, payload=b"")
        self.book.resize(task, len(payload))
        self.step.add(PublishResult(result))


def _batches(tasks: list[Task], timeout: float) -> Iterator[list[Assignment]]:
    """Yield assignments in batches of about `BATCH_BYTES`; `timeout` (s) is for those that have none."""
    waiting = iter(tasks)
    for first in waiting:
        batch, size = [_assignment(first, timeout)], first.size
        while size < protocol.BATCH_BYTES and (task := next(waiting, None)) is not None:
            batch.append(_assignment(task, timeout))
            size += task.size
        yield batch


def _assignment(task: Task, timeout: float) -> Assignment:
    i = task.invocation
    cause = to_environment(i.cause)
    return Assignment(i.id, task.attempt, i.code, i.function, i.payload, i.items, i.timeout or timeout, cause)
