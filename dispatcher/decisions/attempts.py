"""Attempts: a task given to a manager, and how that ends.

    placement ─▶ assigned ─▶ started ─▶ outcome ─┬─ final ─▶ settle ─▶ finish
                    │           │                └─ to be retried ─▶ again
                    └───────────┴─▶ death, lose ─▶ again, or fail with the story

Pure: a part of the state machine (`upon.dispatcher.decisions.state`), over its book.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from upon.dispatcher import protocol
from upon.dispatcher.decisions.book import Book
from upon.dispatcher.decisions.instructions import (
    PublishOutput,
    PublishResult,
    PublishStarted,
    Step,
)
from upon.dispatcher.decisions.memo import Key, Memo
from upon.dispatcher.decisions.placement import Placement
from upon.dispatcher.decisions.stragglers import UsualTimes
from upon.dispatcher.decisions.tasks import (
    HELD,
    MAX_UNSTARTED_LOSSES,
    Task,
    failure,
    instant,
    lost_failure,
    result_of,
    retry_delay,
    start_of,
)
from upon.dispatcher.decisions.waiting import slots_of
from upon.dispatcher.protocol import Attempt, Outcome
from upon.dispatcher.wire import outcome_bytes
from upon.errors import FunctionNotFound, TaskCancelled
from upon.messages import Failure
from upon.printed import OutputPiece

CODE_PATIENCE = 15.0
"""Seconds an invocation waits for its function's code: registry and invocations are different topics."""
SMALL = 1024
"""Bytes of arguments that may as well be held until the result is stored."""
STORY_LINES = 20
"""Lines of a task's story kept."""


class Attempts:
    """The part of the state machine that follows attempts.

    Args:
        book, step: the state machine's.
        placement: who gets what is ready.
        random: numbers from 0 to 1, for the jitter of backoffs.
        memo: results that may be given again.
    """

    def __init__(
        self,
        book: Book,
        step: Step,
        placement: Placement,
        *,
        random: Callable[[], float],
        memo: Memo,
    ) -> None:
        self.book, self.step, self._placement = book, step, placement
        self.usual, self.memo, self._random = UsualTimes(), memo, random
        self._times: dict[str, tuple[list[float], list[float]]] = {}  # by code: s of this turn's tasks, and an item's
        self._beyond: dict[str, float] = {}  # by account: s that they took beyond what was charged

    def queue(self, task: Task, *, first: bool = False) -> None:
        """Let a task wait for a manager, or first for its code."""
        if task.invocation.code in self.book.codes:
            self.book.move(task, "ready", first=first)
        else:
            task.due = self.step.now.mono + CODE_PATIENCE
            self.book.move(task, "needs_code")

    def go_on(self, task: Task) -> None:
        """A new task goes its way; one that has begun before, when managers have had time to say that they have it."""
        if task.before:
            hold = self._placement.hold_until
            held = hold if hold != float("inf") else 0.0
            task.due = max(self.step.now.mono, held)
            self.book.move(task, "retrying")
        elif task.memo is None or not self._is_repeated(task, task.memo):
            self.queue(task)

    def _is_repeated(self, task: Task, key: Key) -> bool:
        """Give a task the result of the same call, or let it wait for the one under way; False: it is to run."""
        if (entry := self.memo.get(key, self.step.now.mono)) is not None:
            task.manager, at = f"as {entry.id}", self.step.now.wall
            self.finish(task, Outcome(task.id, 0, "succeeded", entry.payload, preview=entry.preview, finished=at))
            return True
        if self.memo.leads(key, task.id):
            return False
        if task.state != "alike":
            self.book.move(task, "alike")
        return True

    def _remember(self, task: Task, outcome: Outcome, key: Key) -> None:
        """A call that others may be the same as has ended: they have its value, or one of them runs."""
        if outcome.status == "succeeded" and outcome.attempt and not outcome.bad_items:
            self.memo.put(key, task.id, outcome.payload, outcome.preview, self.step.now.mono)
        for id in self.memo.ended(key, task.id):
            other = self.book.tasks.get(id)
            if other is not None and other.state == "alike":
                self.go_on(other)

    def try_again(self, task: Task) -> None:
        """The wait of a task that is to be tried again is over."""
        before, task.before = task.before, 0
        if not before:
            self.queue(task)
            return
        task.starts = before
        story = f"had begun {before} {'time' if before == 1 else 'times'} under another dispatcher, and nobody has it"
        task.story = [f"attempt {before}: {story}"]
        lost = lost_failure(task)
        delay = retry_delay(task.invocation.retry, task.starts, lost.kinds, self._random())
        if delay is None:
            self._give_up(task, lost)
        elif delay:
            task.due = self.step.now.mono + delay
            self.book.remind(task)
        else:
            self.queue(task)

    def give_up_code(self, task: Task) -> None:
        """Its code has not come in time."""
        invocation = task.invocation
        message = (
            f"the code of {invocation.function or 'the function'} ({invocation.code[:12]}…) is not in the "
            f"registry after {CODE_PATIENCE:.0f} s; register the function again"
        )
        self.finish(task, Outcome(task.id, task.attempt, "failed", failure=failure(FunctionNotFound, message)))

    def adopt(self, task: Task, manager: str, attempt: int) -> None:
        """A manager has this task already: leave it there."""
        task.manager, task.attempt, task.started, task.pid = manager, attempt, 0, 0
        task.starts, task.before, task.sent = max(task.starts, task.before - 1), 0, True  # the last one goes on
        self.book.move(task, "assigned")

    def _current(self, manager: str, id: str, attempt: int) -> Task | None:
        """Return the task if this is its attempt under way."""
        task = self.book.tasks.get(id)
        return task if task is not None and task.is_at(manager, attempt) else None

    def started(self, manager: str, begun: protocol.Begun) -> None:
        task = self._current(manager, begun.id, begun.attempt)
        if task is None or task.state != "assigned":
            return
        task.started, task.pid = begun.started, begun.pid
        task.since = self.step.now.mono - max(0.0, begun.ran)
        if task.spared:
            task.cancelled = task.spared = False
        self.book.move(task, "running")
        self.step.add(PublishStarted(start_of(task, begun.started)))

    def printed(self, manager: str, piece: protocol.Piece) -> None:
        if self._current(manager, piece.id, piece.attempt) is not None:
            self.step.add(PublishOutput(OutputPiece(**msgspec.structs.asdict(piece))))

    def outcome(self, manager: str, outcome: Outcome) -> None:
        task = self.book.tasks.get(outcome.id)
        if task is None:
            if self.book.is_done(outcome.id) or not self.book.keep_early(manager, outcome):
                self.step.stored(manager, Attempt(outcome.id, outcome.attempt))
        elif task.state == "done":
            task.told.append((manager, outcome.attempt))
        elif task.is_at(manager, outcome.attempt):
            self.settle(task, manager, outcome)
        elif outcome.status == "succeeded":
            if task.state in HELD:
                self.step.send(task.manager, protocol.Cancel((Attempt(task.id, task.attempt),)))
            self.settle(task, manager, outcome)
        else:
            self.step.stored(manager, Attempt(outcome.id, outcome.attempt))

    def settle(self, task: Task, manager: str, outcome: Outcome) -> None:
        """An attempt has ended: final, or tried again."""
        if task.before:  # an early outcome: of the last attempt under the earlier dispatcher, or of a later one
            task.starts, task.before = task.before - 1, 0
        task.starts += 1
        succeeded = outcome.status == "succeeded"
        if succeeded and outcome.finished >= outcome.started > 0:
            seconds = (outcome.finished - outcome.started) / 1e9
            times = self._times.get(task.invocation.code)
            if times is None:
                times = self._times[task.invocation.code] = ([], [])
            times[0].append(seconds)
            times[1].append(seconds / (task.invocation.items or 1))
            self._beyond[task.account] = (
                self._beyond.get(task.account, 0.0) + seconds * slots_of(task.needs) - task.charged
            )
        if outcome.status == "failed" and outcome.failure is not None and not task.cancelled:
            delay = retry_delay(task.invocation.retry, task.starts, outcome.failure.kinds, self._random())
            if delay is not None:
                self._say_begun(task, outcome.started)
                if task.state not in HELD:  # an early outcome of a task that was read just now
                    task.manager, task.attempt = manager, outcome.attempt
                    self.queue(task)
                else:
                    self._again(task, delay)
                self.step.stored(manager, Attempt(task.id, outcome.attempt))
                return
        self.book.move(task, "done")
        task.manager, task.attempt = manager, outcome.attempt
        task.started, task.pid = outcome.started, outcome.pid
        self._publish(task, outcome)

    def death(self, manager: str, death: protocol.Death) -> None:
        task = self._current(manager, death.id, death.attempt)
        if task is not None:
            task.pid = death.pid or task.pid
            task.started = death.started or task.started
            began = death.started > 0 or task.state == "running"
            self.lose(task, death.story, began=began, blame=death.blame, finished=death.finished)

    def returned(self, manager: str, attempt: Attempt) -> None:
        """A manager has given back an attempt that had not begun: it keeps its place, in front."""
        task = self._current(manager, *attempt)
        if task is None or task.state != "assigned":
            return
        if task.cancelled:
            self.finish_cancelled(task, "before it began")
        else:
            self.queue(task, first=True)

    def lose(self, task: Task, story: str, *, began: bool, blame: bool = True, finished: int = 0) -> None:
        """An attempt is lost: try again, or fail with the story of all attempts.

        One that had not begun, or is not to blame, has had nothing of its manager: it keeps its place, in front.
        One that had begun has had its turn.
        """
        where = f"{task.manager}/{task.pid}" if task.pid else task.manager
        line = f"attempt {task.attempt} on {where} at {instant(finished or self.step.now.wall)}: {story}"
        task.story = [*task.story, line][-STORY_LINES:]
        counts = began and (blame or task.invocation.retry.attempts == 1)
        task.starts += counts
        task.losses += not began and blame
        if counts:
            self._say_begun(task, task.started)
        if task.cancelled:
            self.finish_cancelled(task, f"while it ran; {story}")
            return
        lost = lost_failure(task)
        delay: float | None = 0.0
        if counts:
            delay = retry_delay(task.invocation.retry, task.starts, lost.kinds, self._random())
        elif task.losses > MAX_UNSTARTED_LOSSES:
            delay = None
        if delay is not None:
            self._again(task, delay, first=not counts)
            return
        self._give_up(task, lost, finished)

    def _give_up(self, task: Task, lost: Failure, finished: int = 0) -> None:
        """A task was lost as often as its policy allows."""
        self.step.tell("warning", lost.message, "task_lost", id=task.id)
        self.finish(task, Outcome(task.id, task.attempt, "failed", failure=lost, finished=finished))

    def _say_begun(self, task: Task, started: int) -> None:
        """Say in Kafka, for a later dispatcher, that an attempt had begun, unless that was said while it ran."""
        if task.state != "running":
            self.step.add(PublishStarted(start_of(task, started or self.step.now.wall, task.starts)))

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
        cancelled = failure(TaskCancelled, f"cancelled {when}", task.story)
        self.finish(task, Outcome(task.id, task.attempt, "cancelled", failure=cancelled))

    def finish(self, task: Task, outcome: Outcome) -> None:
        """A task is done."""
        self.book.move(task, "done")
        self._publish(task, outcome)

    def _publish(self, task: Task, outcome: Outcome) -> None:
        """Publish the result of a task that has just become done; its arguments are needed no more."""
        kept = len(task.invocation.payload)
        if kept > SMALL:
            kept, task.invocation = 0, msgspec.structs.replace(task.invocation, payload=b"")
        self.book.resize(task, kept + outcome_bytes(outcome))
        self.step.add(PublishResult(result_of(task, outcome, self.step.now.wall)))
        if task.memo is not None:
            self._remember(task, outcome, task.memo)

    def learn(self) -> None:
        """Take in, once a turn, how long calls took."""
        ready = self.book.ready
        for code, (tasks, items) in self._times.items():
            ready.observe(code, tasks)
            self.usual.observe(code, items)
        for account, seconds in self._beyond.items():
            ready.charge(account, seconds)
        self._times.clear()
        self._beyond.clear()
