"""What a dispatcher decides: a pure state machine, `handle(inputs, now) → instructions`: one turn.

    record read ─▶ known? claimed by a manager? cancelled? code there? ─▶ ready ─▶ placement ─▶ Send(Tasks)
    outcome     ─▶ of the current attempt? final, or to be retried?    ─▶ PublishResult
    stored      ─▶ the id is done, its offsets are settled             ─▶ Commit, Send(Stored)

Guarantees, whatever the order of the inputs:
- every invocation read gets exactly one PublishResult; an id that is in work or done is not run again;
- what may start once (`Retry.attempts` = 1) is sent when Kafka has that it may have begun, and never again;
- Commit never passes an offset with an invocation whose result is not stored;
- the first final outcome wins; a late success of an earlier attempt counts, a late failure does not;
- the backlog is bounded: past MAX_TASKS or MAX_BYTES it says Pause, below half of them Resume.

Not here: time (it is handed in), sockets, Kafka, the function's code (only which hashes are known), site policy.
The life of a task is the table in `tasks`; the tables it is kept in are `book`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from upon.dispatcher import protocol
from upon.dispatcher.decisions.attempts import Attempts
from upon.dispatcher.decisions.book import Book
from upon.dispatcher.decisions.instructions import (
    BadRecordRead,
    CancelAsked,
    CodeGone,
    CodeKnown,
    Commit,
    DrainAsked,
    Heard,
    Input,
    Instruction,
    IntentStored,
    LetterStored,
    ManagerGone,
    Now,
    PastRead,
    Pause,
    PublishLetter,
    RecordRead,
    ResultsStored,
    Resume,
    Step,
    Tick,
)
from upon.dispatcher.decisions.memo import Memo
from upon.dispatcher.decisions.past import Past
from upon.dispatcher.decisions.placement import Placement
from upon.dispatcher.decisions.roster import Roster
from upon.dispatcher.decisions.tasks import HELD, Task, new_task
from upon.dispatcher.decisions.waiting import Depths
from upon.dispatcher.protocol import Attempt

CANCEL_MEMORY = 3600.0
"""Seconds a cancel waits for its invocation: it may be read first."""
MAX_CANCELS = 100_000
"""Cancels that wait, at most; the oldest are forgotten."""
UNREAD = 600.0
"""Seconds, of reading on, in which the invocation of what a manager has must have been read."""
NEW = 1 << 63
"""An age: it was not asked for before."""
MAX_TASKS = 100_000
"""Tasks held beside one for each slot, at most (plus what is in the records under way)."""
MAX_BYTES = 256 * 1024 * 1024
"""Bytes of arguments and results held, at most (plus what is in the records under way)."""


class State:
    """The dispatcher of one site.

    Args:
        past: what is known of the site's work before; default: there was none.
        depths: how many tasks of a function a manager may hold.
        session: named in every Beat; new at each start.
        closed: whether nothing is started until somebody opens the site.
        hold_until: monotonic s before which nothing is placed, so that managers can claim what they hold.
        timeout: s that a task may run which names no timeout itself; 0 = without end.
        max_tasks, max_bytes: bounds of the backlog.
        random: numbers from 0 to 1, for the jitter of backoffs.
        memo: results that may be given again; default: none are.
    """

    def __init__(
        self,
        *,
        past: Past | None = None,
        depths: Depths | None = None,
        session: str = "",
        closed: bool = False,
        hold_until: float = 0.0,
        timeout: float = 0.0,
        max_tasks: int = MAX_TASKS,
        max_bytes: int = MAX_BYTES,
        random: Callable[[], float] = random.random,
        memo: Memo | None = None,
    ) -> None:
        self.book, self.step = Book(past, depths), Step()
        memo = Memo() if memo is None else memo
        self.placement = Placement(self.book, self.step, hold_until=hold_until, closed=closed, timeout=timeout)
        self.attempts = Attempts(self.book, self.step, self.placement, random=random, memo=memo)
        self.roster = Roster(self.book, self.step, self.attempts, session)
        self.paused = False
        self._waited = 0.0  # monotonic s: since when what managers have and was not read yet could have been read
        self._max_tasks, self._max_bytes = max_tasks, max_bytes

    def handle(self, inputs: Iterable[Input], now: Now) -> list[Instruction]:
        """Take in what has happened since the last turn, in order; return what is to be done, in order."""
        self.step.begin(now)
        for event in inputs:
            self._take(event)
        self.step.say_stored()
        self.attempts.learn()
        self.placement.place()
        self._bound()
        moved = self.book.offsets.advanced()
        for partition in self.book.offsets.closed():
            moved[partition] = self.book.offsets.position(partition)
        if moved:
            self.step.add(Commit(moved))
        return self.step.instructions

    def _take(self, event: Input) -> None:
        match event:
            case Heard():
                self._heard(event.manager, event.message)
            case RecordRead():
                self._record(event)
            case ResultsStored():
                self._stored(event.ids)
            case IntentStored():
                self.placement.may_begin(event.id, event.attempt)
            case PastRead():
                self._past_read(event.past)
            case CodeKnown():
                self._code_known(event.hash)
            case CodeGone():
                self._code_gone(event.hash)
            case CancelAsked():
                for id in event.ids:
                    self._cancel(id, event.running)
            case DrainAsked(managers, on):
                if managers:
                    self.roster.drain(managers)
                else:
                    self.placement.closed = on
            case ManagerGone():
                self.roster.gone(event.manager, event.story)
            case BadRecordRead():
                if self.book.offsets.read(event.partition, event.offset):
                    self.book.offsets.open(event.partition, event.offset)
                    self.step.add(PublishLetter(event.letter, event.partition, event.offset))
            case LetterStored():
                self.book.offsets.close(event.partition, event.offset)
            case Tick():
                self._tick()

    @property
    def draining(self) -> bool:
        """Whether nothing new is started: the site is closed, or about to stop."""
        return self.placement.closed or self.placement.hold_until == float("inf")

    def drain(self, on: bool) -> None:
        """Start nothing more, or go on: what managers hold runs to its end, the rest waits."""
        self.placement.hold_until = float("inf") if on else 0.0

    def deadline(self) -> float | None:
        """Return when (monotonic s) a Tick is due; None: nothing waits for time to pass."""
        times = [self.book.alarms[0][0]] if self.book.alarms else []
        if (roster := self.roster.deadline()) is not None:
            times.append(roster)
        if self.book.ready and self.step.now.mono < self.placement.hold_until:
            times.append(self.placement.hold_until)
        return min(times, default=None)

    def check_invariants(self) -> None:
        """Raise AssertionError unless all tables agree (for tests)."""
        self.book.check_invariants()
        for task in self.book.tasks.values():
            if task.state == "alike":
                first = self.book.tasks.get(self.attempts.memo.leader(task.memo) or "") if task.memo else None
                assert first is not None, f"{task.id} waits for nobody"
                assert first.state != "done", f"{task.id} waits for what has ended"
        over = len(self.book.tasks) > self._most or self.book.bytes > self._max_bytes
        assert self.paused or not over, "over the bound and not paused"
        for partition, at in self.book.offsets.positions().items():
            assert all(o >= at for p, o in self.book.offsets.counts() if p == partition), "committed past open work"

    def _record(self, record: RecordRead) -> None:
        book = self.book
        if not book.offsets.read(record.partition, record.offset):
            return
        position = (record.partition, record.offset)
        for invocation in record.batch.invocations:
            known = book.tasks.get(invocation.id)
            if known is None and book.is_done(invocation.id):
                continue
            book.offsets.open(*position)
            if known is not None:
                known.positions.append(position)
                continue
            task = new_task(invocation, record.batch, position, self.step.now.wall)
            book.open(task)
            self._admit(task)

    def _admit(self, task: Task) -> None:
        """Send a new task on its way."""
        book = self.book
        if not (book.claims or book.early or book.cancels or book.starts or book.since):
            self.attempts.go_on(task)
            return
        task.before = book.starts.pop(task.id, task.before)
        claim, early = book.claims.pop(task.id, None), book.take_early(task.id)
        if claim is None and early is None and _age(task) < book.since:
            book.move(task, "unsure")  # a cancel waits, too: it may be done
            return
        cancelled = book.cancels.pop(task.id, None)
        if early is not None:
            self.attempts.settle(task, *early)
        elif claim is not None and (cancelled is None or not cancelled[1]):
            self.attempts.adopt(task, *claim)
            if cancelled is not None:
                self._cancel(task.id, running=False)
        elif cancelled is not None:
            if claim is not None:
                self.step.send(claim[0], protocol.Cancel((Attempt(task.id, claim[1]),)))
            self.attempts.finish_cancelled(task, "before it was started")
        else:
            self.attempts.go_on(task)

    def _past_read(self, past: Past) -> None:
        """All is known now: what is unsure was done long ago, or goes its way."""
        book = self.book
        book.long_done, book.since = past.done if len(past.done) else None, 0
        for task in list(book.unsure.values()):
            if task.id in past.done:
                book.move(task, "stored")
            elif book.cancels.pop(task.id, None) is not None:
                self.attempts.finish_cancelled(task, "before it was started")
            else:
                task.before = past.starts.get(task.id, task.before)
                self.attempts.go_on(task)

    def _code_known(self, code: str) -> None:
        self.book.codes.add(code)
        for task in list(self.book.wanting.get(code, {}).values()):
            self.book.move(task, "ready")

    def _code_gone(self, code: str) -> None:
        """What is not placed waits for it to be registered again; a manager that lacks it says so."""
        self.book.codes.discard(code)
        self.book.capacity.forget(code)
        for task in self.book.ready.of(code):
            self.attempts.queue(task)

    def _cancel(self, id: str, running: bool) -> None:
        book = self.book
        task = book.tasks.get(id)
        if task is None or task.state == "unsure":
            if not book.is_done(id):
                before = book.cancels.pop(id, None)
                book.cancels[id] = (self.step.now.mono + CANCEL_MEMORY, running or (before is not None and before[1]))
                if len(book.cancels) > MAX_CANCELS:
                    book.cancels.popitem(last=False)
        elif task.state in HELD:
            if running and (not task.cancelled or task.spared):
                task.cancelled, task.spared = True, False
                self.step.send(task.manager, protocol.Cancel((Attempt(id, task.attempt),)))
            elif not running and not task.cancelled and task.state == "assigned":
                task.cancelled = task.spared = True  # its manager knows whether it has begun
                self.step.send(task.manager, protocol.Cancel((Attempt(id, task.attempt),), running=False))
        elif task.state != "done":
            self.attempts.finish_cancelled(task, "while it was queued")

    def _stored(self, ids: tuple[str, ...]) -> None:
        for id in ids:
            task = self.book.tasks.get(id)
            if task is None or task.state != "done":
                continue
            self.book.move(task, "stored")
            if task.manager in self.book.managers:
                self.step.stored(task.manager, Attempt(id, task.attempt))
            for manager, attempt in task.told:
                if manager in self.book.managers:
                    self.step.stored(manager, Attempt(id, attempt))

    def _heard(self, id: str, message: protocol.FromManager) -> None:
        manager = self.book.managers.get(id)
        if isinstance(message, protocol.Ready):
            self.roster.ready(id, message)
            for attempt in message.held:  # what was unsure is known now: it had begun, perhaps
                if attempt.id in self.book.tasks and (asked := self.book.cancels.pop(attempt.id, None)) is not None:
                    self._cancel(attempt.id, asked[1])
            return
        if manager is None:
            if isinstance(message, protocol.Results):  # work that is done counts, whoever is known
                for outcome in message.outcomes:
                    if outcome.status == "succeeded":
                        self.attempts.outcome(id, outcome)
            if not isinstance(message, protocol.Bye):
                self.step.send(id, protocol.Beat(False, self.roster.session))
            return
        manager.heard = self.step.now.mono
        match message:
            case protocol.Results():
                for outcome in message.outcomes:
                    self.attempts.outcome(id, outcome)
            case protocol.Started():
                for begun in message.begun:
                    self.attempts.started(id, begun)
            case protocol.Output():
                for piece in message.pieces:
                    self.attempts.printed(id, piece)
            case protocol.Heartbeat():
                self.roster.beat(manager, message)
            case protocol.Lost():
                for death in message.deaths:
                    self.attempts.death(id, death)
            case protocol.Returned():
                for attempt in reversed(message.attempts):
                    self.attempts.returned(id, attempt)
            case protocol.Need():
                self.roster.need(manager, message.codes)
            case protocol.Bye():
                self.roster.gone(id, f"stopped ({message.reason or 'cleanly'})", clean=True)

    def _tick(self) -> None:
        mono, book = self.step.now.mono, self.book
        for task in book.due(mono):
            if task.state == "retrying":
                self.attempts.try_again(task)
            elif task.state == "needs_code":  # it may have ended meanwhile, with one that was due before it
                self.attempts.give_up_code(task)
        self.roster.tick()
        if not (book.claims or book.early) or self.paused:
            self._waited = mono
        elif mono - self._waited > UNREAD:  # it was done long ago, and its offset committed
            for manager, outcome in book.forget_unread():
                self.step.stored(manager, Attempt(outcome.id, outcome.attempt))
        while book.cancels and next(iter(book.cancels.values()))[0] <= mono:
            book.cancels.popitem(last=False)

    @property
    def _most(self) -> int:
        """How many tasks may be held: one for every slot beside those that wait."""
        return self._max_tasks + self.book.capacity.slots

    def _bound(self) -> None:
        tasks, size = len(self.book.tasks), self.book.bytes
        if not self.paused and (tasks > self._most or size > self._max_bytes):
            self.paused = True
            self.step.add(Pause())
        elif self.paused and tasks <= self._most - self._max_tasks // 2 and size <= self._max_bytes // 2:
            self.paused = False
            self.step.add(Resume())


def _age(task: Task) -> int:
    """Return since when (ns, broker's clock) this work may have been asked for before; what no rule fired is new."""
    cause = task.invocation.cause
    return NEW if cause is None or cause.event_recorded <= 0 else cause.event_recorded
