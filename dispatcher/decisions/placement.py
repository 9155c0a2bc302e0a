"""Who gets what is ready: the fairest lane's next tasks for the managers that have room, once a turn.

    may_begin ─┐
    ready ─────┴─▶ place ─▶ assigned, Send(Tasks), SendCode; or PublishIntent first, for what may start once

Pure: a part of the state machine (`state`), over its book. Not here: which lane is fairest (`waiting`), where there is
room (`capacity`).
"""

from __future__ import annotations

from itertools import islice

from upon.dispatcher import protocol
from upon.dispatcher.decisions.book import Book
from upon.dispatcher.decisions.capacity import Manager
from upon.dispatcher.decisions.instructions import PublishIntent, SendCode, Step
from upon.dispatcher.decisions.tasks import Task, assignment_of, start_of
from upon.dispatcher.decisions.waiting import Lane
from upon.dispatcher.protocol import BATCH_BYTES, Attempt
from upon.dispatcher.wire import assignment_bytes
from upon.portions import portions

SHAPED_TRIES = 8
"""Lanes that need resources and are tried in vain, in one placement; the others of that kind wait for the next."""
NOBODY_COULD = "a manager that has so much"
"""What lanes wait for that need more than any manager has."""


class Placement:
    """The part of the state machine that gives tasks to managers.

    Args:
        book, step: the state machine's.
        timeout: s that a task may run which names no timeout itself; 0 = without end.

    Attributes:
        hold_until: monotonic s before which nothing is placed.
        closed: nothing is placed until somebody says so.
    """

    def __init__(self, book: Book, step: Step, *, hold_until: float, closed: bool, timeout: float) -> None:
        self.book, self.step, self._timeout = book, step, timeout
        self.hold_until, self.closed = hold_until, closed
        self._promised: list[Task] = []  # placed, and may begin from this turn on

    def may_begin(self, id: str, attempt: int) -> None:
        """Kafka has that this attempt may have begun: its manager may have it."""
        task = self.book.tasks.get(id)
        if task is not None and task.state == "assigned" and task.attempt == attempt and not task.sent:
            task.sent = True
            self._promised.append(task)

    @property
    def _open(self) -> bool:
        return not self.closed and self.step.now.mono >= self.hold_until

    def place(self) -> None:
        """Give ready tasks to managers that have room: one message for each manager and turn, code first."""
        capacity = self.book.capacity
        given: dict[str, list[Task]] = {}
        for task in self._promised:
            given.setdefault(task.manager, []).append(task)
        self._promised.clear()
        if self._open:
            self._share_out(given)
        while capacity.turned() and self._open:  # somebody was kept for nothing: others may have him
            self._share_out(given)
        for id, all_tasks in given.items():
            assignments = tuple(assignment_of(task, self._timeout) for task in all_tasks)
            batches = portions(assignments, assignment_bytes, BATCH_BYTES) if len(assignments) > 1 else (assignments,)
            for batch in batches:
                self.step.send(id, protocol.Tasks.of(batch))
        if self._open and not capacity.level() and capacity.stuck:
            self._spread()

    def _share_out(self, given: dict[str, list[Task]]) -> None:
        """Give tasks to managers, the fairest lane first, until nobody has room or nothing that may go waits."""
        ready, capacity, tries = self.book.ready, self.book.capacity, SHAPED_TRIES
        while ready and (lane := ready.next(capacity.level(), shaped=tries > 0)) is not None:
            shares, wanting = self._shares(lane)
            if not shares:
                ready.set_aside(lane, wanting)
                tries -= not wanting
                continue
            tasks = iter(ready.take(lane, sum(count for _, count in shares)))
            for manager, count in shares:
                self._give(manager, lane.code, list(islice(tasks, count)), given)
        ready.bring_back()

    def _shares(self, lane: Lane) -> tuple[list[tuple[Manager, int]], str]:
        """Return who gets how many of a lane's next tasks; if nobody does, what it waits for (`Waiting.set_aside`)."""
        ready, capacity, count = self.book.ready, self.book.capacity, self.book.ready.turn(lane)
        if (needs := lane.needs) is None:
            return capacity.deal(lane.code, ready.depths.of(lane.code), count), ""
        count, used_up = self.book.limits.room(needs.limits, count)
        if used_up:
            return [], used_up
        if not needs.shaped:
            return capacity.deal(lane.code, 1, count), ""
        if shares := capacity.fit(needs.resources, count):
            return shares, ""
        return [], "" if capacity.could(needs.resources) else NOBODY_COULD

    def _spread(self) -> None:
        """Ask back what waits behind slow tasks while slots elsewhere are idle."""
        for manager, count in self.book.capacity.idle_for_stuck():
            waiting = [task for task in manager.tasks.values() if task.state == "assigned" and task.sent]
            asked = [task for task in waiting if task.recalled != task.attempt][-count:]
            for task in asked:
                task.recalled = task.attempt
            if asked:
                self.step.send(manager.id, protocol.Return(tuple(Attempt(task.id, task.attempt) for task in asked)))

    def _give(self, manager: Manager, code: str, tasks: list[Task], given: dict[str, list[Task]]) -> None:
        self.book.assign(manager, tasks)
        wall = self.step.now.wall
        for task in tasks:
            task.attempt += 1
            task.dispatched, task.started, task.pid = wall, 0, 0
            task.sent = task.invocation.retry.attempts > 1
            if not task.sent:
                self.step.add(PublishIntent(task.attempt, start_of(task, 0)))
        if code not in manager.warm:
            self.book.capacity.warm(manager, code)
            self.step.add(SendCode(manager.id, code))
        if at_once := [task for task in tasks if task.sent]:
            given.setdefault(manager.id, []).extend(at_once)
