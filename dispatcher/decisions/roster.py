"""The roster: managers that come, are there, and go.

    unknown ──Ready──▶ known ──Bye, silence, broken connection──▶ unknown        what it held is queued again
       └─ anything else: Beat(known=False), so that it says Ready

Pure: a part of the state machine (`upon.dispatcher.decisions.state`), over its book.
"""

from __future__ import annotations

from upon.dispatcher import protocol
from upon.dispatcher.decisions.attempts import Attempts
from upon.dispatcher.decisions.book import Book
from upon.dispatcher.decisions.capacity import Manager
from upon.dispatcher.decisions.instructions import SendCode, Step
from upon.dispatcher.decisions.placement import NOBODY_COULD
from upon.dispatcher.decisions.tasks import FREE
from upon.dispatcher.protocol import Attempt


class Roster:
    """The part of the state machine that knows the managers.

    Attributes:
        changes: rises when a manager comes or goes.
    """

    def __init__(self, book: Book, step: Step, attempts: Attempts, session: str) -> None:
        self.book, self.step, self.attempts, self.session = book, step, attempts, session
        self.changes = 0
        self._look = float("inf")  # when the first may have been silent for too long

    def tick(self) -> None:
        """Give up who is silent."""
        mono, managers = self.step.now.mono, self.book.managers
        if mono < self._look:
            return
        for manager in [m for m in managers.values() if mono - m.heard >= protocol.LOST_AFTER]:
            self.gone(manager.id, f"has been silent for {mono - manager.heard:.1f} s")
        self._look = min((m.heard for m in managers.values()), default=float("inf")) + protocol.LOST_AFTER

    def deadline(self) -> float | None:
        """Return when (monotonic s) `tick` is due; None: nobody is there."""
        return self._look if self.book.managers else None

    def beat(self, manager: Manager, heartbeat: protocol.Heartbeat) -> None:
        """A sign of life, answered by one: it is known, and the dispatcher is there."""
        manager.busy, manager.workers = heartbeat.busy, heartbeat.workers
        self.step.send(manager.id, protocol.Beat(True, self.session))

    def ready(self, id: str, ready: protocol.Ready) -> None:
        if ready.slots < 0:
            self.step.send(id, protocol.Reject(f"a manager has slots, not {ready.slots}"))
            return
        book = self.book
        manager = book.managers.get(id)
        if manager is None:
            how = f"is ready with {ready.slots} slots" if ready.slots else "is there, and drains"
            self.step.tell("info", f"manager {id} {how}", "manager_ready", manager=id)
            manager = Manager(
                id, ready.host, ready.pid, ready.workers, ready.slots, ready.python, set(), self.step.now.mono
            )
            book.capacity.add(manager)
            self.changes += 1
            self._look = min(self._look, manager.heard + protocol.LOST_AFTER)
        if manager.slots and not ready.slots:
            self.step.tell("info", f"manager {id} drains: it gets nothing more", "manager_drains", manager=id)
            self.changes += 1
        manager.heard, manager.workers = self.step.now.mono, ready.workers
        book.capacity.resize(manager, ready.slots, ready.memory, len(ready.accelerators))
        book.ready.bring_back(NOBODY_COULD)
        book.capacity.reheat(manager, ready.warm)
        self.step.send(id, protocol.Beat(True, self.session))
        settled: list[Attempt] = []
        stale: list[Attempt] = []
        for attempt in ready.held:
            task = book.tasks.get(attempt.id)
            if task is None:
                if book.is_done(attempt.id):
                    settled.append(attempt)
                else:
                    book.claims[attempt.id] = (id, attempt.attempt)
            elif task.state in FREE:
                self.attempts.adopt(task, id, attempt.attempt)
            elif task.manager != id or task.attempt != attempt.attempt:
                stale.append(attempt)
        if settled or stale:  # what still runs is stopped; what has an outcome may be forgotten when it is stored
            self.step.send(id, protocol.Cancel((*settled, *stale)))
        if settled:
            self.step.send(id, protocol.Stored(tuple(settled)))

    def drain(self, ids: tuple[str, ...]) -> None:
        """Have managers end what runs, take nothing more, and go; those that are not here are gone already."""
        for id in ids:
            if id in self.book.managers:
                self.step.send(id, protocol.Stop(True, "somebody asked for it"))

    def gone(self, id: str, story: str, clean: bool = False) -> None:
        """Queue again what a manager held that is there no more: in front what had not begun, else as a retry."""
        book = self.book
        manager = book.managers.get(id)
        if manager is None:
            return
        level = "info" if clean else "warning"
        self.step.tell(
            level, f"manager {id} {story}; {len(manager.tasks)} tasks are queued again", "manager_gone", manager=id
        )
        self.changes += 1
        for task in reversed(list(manager.tasks.values())):
            once = task.invocation.retry.attempts == 1 and task.sent  # it may have begun: nobody knows better
            self.attempts.lose(task, f"manager {story}", began=once or task.state == "running", blame=once or not clean)
        book.capacity.remove(manager)
        book.claims = {task: claim for task, claim in book.claims.items() if claim[0] != id}

    def need(self, manager: Manager, codes: tuple[str, ...]) -> None:
        for code in codes:
            if code in self.book.codes:
                self.step.add(SendCode(manager.id, code))
            else:
                self.book.capacity.cool(manager, code)
                self._take_back(manager, code)

    def _take_back(self, manager: Manager, code: str) -> None:
        """Queue again what a manager cannot begin, for its code is gone: it runs if that is registered again."""
        story = "had not got the function's code, which is not in the registry any more"
        for task in [task for task in manager.tasks.values() if task.invocation.code == code]:
            if task.state == "assigned":
                self.step.send(manager.id, protocol.Cancel((Attempt(task.id, task.attempt),)))
                self.attempts.lose(task, story, began=False, blame=False)
