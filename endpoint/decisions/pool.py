"""What a manager decides about its workers: a pure state machine; each event returns instructions.

    a task     arrived ─▶ queued ─▶ ahead at a worker ─Began─▶ running ─Done─▶ Ended
                             ▲──Reclaim, worker exited──┘        └─worker exited─▶ Died
    a worker   Fork ─▶ starting ─Up─▶ up (idle | running) ─Kill or by itself─▶ exited ─▶ Fork
                           └──exited before Up─▶ a wait that doubles, then Fork

Guarantees, whatever the order of the events:
- every task that arrived is in one place, and ends in exactly one Ended, Died or Back;
- a task is lost with a worker only if it had begun there; what the worker held ahead is queued again, in front;
- one task too long (Timeout) or cancelled costs its worker and nobody else's task;
- what is asked back, or waits when the pool drains or stops, goes back to the dispatcher unless it has begun;
- tasks are handed out in the order in which they came: one whose code is on its way holds up those behind it;
- what was promised resources begins when all of them are free, and holds up those behind it until then;
- but for that, no task waits while a worker is idle, nor behind another one's.

Not here: time (handed in, monotonic seconds), processes and channels (`upon.endpoint.workers`), attempts' numbers and
what the dispatcher knows (`upon.endpoint.decisions.ledger`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from signal import SIGKILL

from upon.dispatcher.protocol import STARTED_AFTER, Assignment, Begun
from upon.endpoint.channel import Began, Code, Done, FromWorker, Missing, Retire, Up
from upon.endpoint.decisions.alarms import Alarms
from upon.endpoint.decisions.code import CodeCache
from upon.endpoint.decisions.dealing import Rooms
from upon.endpoint.decisions.endings import cancelled, ended
from upon.endpoint.decisions.instructions import Back, Ended, Fork, Give, Instruction, Kill, Lack, Reclaim, Slow
from upon.endpoint.decisions.leases import Leases, Offer
from upon.endpoint.decisions.queue import Queue
from upon.endpoint.decisions.worker_record import Reason, Worker, begun, ending

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds before a worker that died at its start is started again: doubled each time, up to the longest."""


class Pool:
    """The workers of one manager and the tasks they have.

    Args:
        slots: how many workers.
        codes: where bodies are kept.
        offer: what tasks may have for themselves beside a worker.
    """

    def __init__(self, slots: int, codes: CodeCache | None = None, offer: Offer | None = None) -> None:
        self.slots = slots
        self.leases = Leases(offer or Offer())
        self.codes = codes or CodeCache()
        self.workers: dict[int, Worker] = {}
        self.queue = Queue()
        self._wanted: set[str] = set()  # code of queued tasks that was asked for and is not here yet
        self._rooms, self._alarms = Rooms(), Alarms(self.workers)
        self._cancelling: dict[str, bool] = {}  # ids at a worker that shall not begin; True: end if they have
        self._asked: set[str] = set()  # ids at a worker that are asked back
        self._numbers = 0
        self.draining = False
        self._stopped = False
        self._deaths_at_start = 0
        self._forks_due: list[float] = []

    # ------------------------------------------------------------------------------------------- seen from outside

    @property
    def wake_at(self) -> float:
        """Monotonic s when `tick` may have something to do."""
        return min(self._alarms.next, *self._forks_due) if self._forks_due else self._alarms.next

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(worker.pid for worker in self.workers.values() if worker.up)

    @property
    def ready(self) -> bool:
        """Whether all workers are up."""
        return self._rooms.count >= self.slots

    @property
    def busy(self) -> int:
        return sum(worker.running is not None for worker in self.workers.values())

    @property
    def queued(self) -> int:
        ahead = sum(len(worker.ahead) for worker in self.workers.values())
        return len(self.queue) + ahead

    def begun(self, now: float) -> list[Begun]:
        """Return what runs and was said to be slow."""
        return [begun(worker, now) for worker in self.workers.values() if worker.told]

    def lacking(self) -> list[str]:
        """Return the code that is waited for."""
        return [*self._wanted, *(worker.lacks for worker in self.workers.values() if worker.lacks)]

    # ------------------------------------------------------------------------------------------------------ events

    def start(self) -> list[Instruction]:
        """Begin: all workers are to be started."""
        return [self._fork() for _ in range(self.slots)]

    def assign(self, assignments: Iterable[Assignment], now: float) -> list[Instruction]:
        """Tasks arrived; their ids are new here."""
        if self.draining:
            return [Back(list(assignments))]
        out: list[Instruction] = []
        for assignment in assignments:
            if assignment.resources is not None and not self.leases.could(assignment.resources, self.slots):
                out.append(Back([assignment]))
                continue
            self.queue.add(assignment)
            if assignment.code not in self.codes:
                self._want(assignment.code, out)
        return self._hand_out(now, out)

    def code(self, code: Code, now: float) -> list[Instruction]:
        """A function's body arrived."""
        out: list[Instruction] = []
        self.codes.add(code)
        self._wanted.discard(code.hash)
        for worker in self.workers.values():
            if worker.lacks == code.hash:
                worker.lacks = ""
                out.append(Give(worker.number, [code], []))
        return self._hand_out(now, out)

    def forked(self, number: int, pid: int) -> None:
        """A worker's process exists."""
        if number in self.workers:
            self.workers[number].pid = pid

    def heard(self, number: int, messages: Sequence[FromWorker], now: float) -> list[Instruction]:
        """A worker reported."""
        out: list[Instruction] = []
        worker = self.workers.get(number)
        if worker is None:
            return out
        seq = worker.seq if worker.running is not None else -1
        for message in messages:
            match message:
                case Done():
                    self._done(worker, message, out)
                case Began():
                    self._began(worker, message, now, out)
                case Up():
                    worker.up, worker.pid, worker.capped = True, message.pid, message.capped
                    self._deaths_at_start = 0
                case Missing():
                    self._missing(worker, message.code, out)
                case Retire():
                    self._kill(worker, "retired", out)
        if fresh := worker.running is not None and worker.seq != seq:
            self._alarms.set(worker)
        self._rooms.place(worker, fresh=fresh)
        return self._hand_out(now, out)

    def reclaimed(self, number: int, seqs: Container[int], now: float) -> list[Instruction]:
        """These tasks' tokens were read back: the worker cannot begin them any more."""
        worker = self.workers.get(number)
        if worker is None:
            return []
        taken = [assignment for seq, assignment in worker.ahead if seq in seqs]
        if not taken:
            return []
        out: list[Instruction] = []
        worker.ahead = deque(pair for pair in worker.ahead if pair[0] not in seqs)
        worker.ahead_bytes = sum(len(assignment.payload) for _, assignment in worker.ahead)
        self._rooms.place(worker)
        self._requeue(taken, out)
        return self._hand_out(now, out)

    def confused(self, number: int) -> list[Instruction]:
        """What came from a worker makes no sense (its function wrote to our descriptors?): it has to go."""
        out: list[Instruction] = []
        if number in self.workers:
            self._kill(self.workers[number], "confused", out)
        return out

    def exited(self, number: int, exitcode: int, output: str, now: float) -> list[Instruction]:
        """A worker's process has ended, and all it had said was heard.

        Args:
            exitcode: as `subprocess` has it: minus the signal's number if one killed it.
            output: what its running task had printed.
        """
        out: list[Instruction] = []
        worker = self.workers.pop(number, None)
        if worker is None:
            return out
        self._rooms.leave(worker)
        running = worker.running
        if running is not None:
            self._let_go(running)
            if self._cancelling.pop(running.id, False):
                worker.dying, worker.victim = "cancel", worker.seq
            out.append(ending(worker, running, exitcode, output, now))
        self._requeue([assignment for _, assignment in worker.ahead], out)
        if not self._stopped:
            if worker.up:
                worker.up = False
                out.append(self._fork())
            else:
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0**self._deaths_at_start)
                self._deaths_at_start += 1
                self._forks_due.append(now + wait)
        return self._hand_out(now, out)

    def cancel(self, id: str, now: float, *, running: bool = True) -> list[Instruction]:
        """Somebody wants this task stopped, if it has begun only if `running`; unknown ids are nothing to do."""
        out: list[Instruction] = []
        worker = self._rooms.holders.get(id)
        if worker is None:
            out.extend(Ended(cancelled(one)) for one in self._take_out(lambda assignment: assignment.id == id))
            return self._hand_out(now, out)
        if worker.running is None or worker.running.id != id:  # it is ahead
            self._cancelling[id] = running or self._cancelling.get(id, False)
            return [Reclaim(worker.number)]
        if running:
            if worker.dying and worker.victim != worker.seq:
                self._cancelling[id] = True  # it began while the worker was being killed for the task before
            self._kill(worker, "cancel", out)
        return out

    def give_back(self, ids: Iterable[str], now: float) -> list[Instruction]:
        """Give back what of these has not begun; unknown ids are nothing to do."""
        wanted = set(ids)
        out: list[Instruction] = []
        if back := self._take_out(lambda assignment: assignment.id in wanted):
            out.append(Back(back))
        holders = {id: self._rooms.holders[id] for id in wanted if id in self._rooms.holders}
        self._asked |= {id for id, worker in holders.items() if worker.running is None or worker.running.id != id}
        out.extend(Reclaim(number) for number in sorted({worker.number for worker in holders.values() if worker.ahead}))
        return self._hand_out(now, out)

    def exceeded(self, number: int, used: int) -> list[Instruction]:
        """What runs there has taken more memory than it may (`used`, bytes)."""
        out: list[Instruction] = []
        worker = self.workers.get(number)
        if worker is not None and not worker.dying:
            worker.used = used
            self._kill(worker, "memory", out)
        return out

    def drain(self) -> list[Instruction]:
        """From now on nothing begins; what waits is given back."""
        self.draining = True
        out: list[Instruction] = []
        if back := self._take_out(lambda _: True):
            out.append(Back(back))
        out.extend(Reclaim(worker.number) for worker in self.workers.values() if worker.ahead)
        return out

    def _take_out(self, which: Callable[[Assignment], bool]) -> list[Assignment]:
        """Take what is at no worker."""
        if taken := self.queue.take_out(which):
            self._wanted &= {assignment.code for assignment in self.queue}
        return taken

    def tick(self, now: float) -> list[Instruction]:
        """Time has passed; needed at `wake_at`, harmless at any time."""
        out: list[Instruction] = []
        for worker in self._alarms.due(now):
            if not worker.told and now >= worker.since + STARTED_AFTER:  # as `next_event` has it, to the last bit
                worker.told = True
                out.append(Slow(begun(worker, now)))
            if worker.deadline and now >= worker.deadline:
                self._kill(worker, "timeout", out)
            self._alarms.set(worker)
        due = [at for at in self._forks_due if at <= now]
        self._forks_due = [at for at in self._forks_due if at > now]
        if not self._stopped:
            out.extend(self._fork() for _ in due)
        return self._hand_out(now, out)

    def stop(self) -> list[Instruction]:
        """End: what waits is given back, what runs is killed and told as lost, though not to blame."""
        out = self.drain()
        self._stopped = True
        for worker in self.workers.values():
            self._kill(worker, "stop", out)
        return out

    def killed(self, now: float) -> list[Instruction]:
        """Return the deaths of what `stop` killed, in place of waiting for the workers' exits."""
        out: list[Instruction] = []
        for worker in self.workers.values():
            if worker.running is not None:
                out.append(ending(worker, worker.running, -SIGKILL, "", now))
                worker.running = None
        return out

    # ----------------------------------------------------------------------------------------------------- workings

    def _fork(self) -> Fork:
        self._numbers += 1
        self.workers[self._numbers] = Worker(self._numbers)
        return Fork(self._numbers)

    def _kill(self, worker: Worker, reason: Reason, out: list[Instruction]) -> None:
        if not worker.dying:
            worker.dying, worker.deadline = reason, 0.0
            self._alarms.set(worker)  # the one for its deadline means nothing now
            self._rooms.place(worker)
            worker.victim = worker.seq if worker.running is not None else -1
            out.extend((Reclaim(worker.number), Kill(worker.number)))

    def _let_go(self, task: Assignment) -> None:
        """A worker has this task no more."""
        self._rooms.holders.pop(task.id, None)
        if task.resources is not None:
            for worker in self.leases.end(task.id):
                self._rooms.place(worker)

    def _want(self, code: str, out: list[Instruction]) -> None:
        if code not in self._wanted:
            self._wanted.add(code)
            out.append(Lack(code))

    def _missing(self, worker: Worker, code: str, out: list[Instruction]) -> None:
        body = self.codes.get(code)
        if body is not None:
            out.append(Give(worker.number, [body], []))
        else:
            worker.lacks = code
            out.append(Lack(code))

    def _requeue(self, assignments: list[Assignment], out: list[Instruction]) -> None:
        back: list[Assignment] = []
        for assignment in reversed(assignments):
            self._let_go(assignment)
            asked = assignment.id in self._asked
            self._asked.discard(assignment.id)
            if self._cancelling.pop(assignment.id, None) is not None:
                out.append(Ended(cancelled(assignment)))
            elif asked or self.draining:
                back.append(assignment)
            else:
                self.queue.put_back(assignment)
        if back:
            out.append(Back(back[::-1]))

    def _began(self, worker: Worker, began: Began, now: float, out: list[Instruction]) -> None:
        if worker.running is not None or not worker.ahead or worker.ahead[0][0] != began.seq:
            self._kill(worker, "confused", out)
            return
        _, assignment = worker.ahead.popleft()
        self._asked.discard(assignment.id)
        worker.ahead_bytes -= len(assignment.payload)
        worker.running, worker.seq, worker.since, worker.started = assignment, began.seq, now, began.at
        timed = assignment.timeout > 0 and not worker.dying  # a dying worker's exit is on its way
        worker.told, worker.deadline = False, now + assignment.timeout if timed else 0.0
        if not self._cancelling.get(assignment.id, True):
            del self._cancelling[assignment.id]  # it has begun, and is to be left alone then
        elif assignment.id in self._cancelling:
            self._kill(worker, "cancel", out)

    def _done(self, worker: Worker, done: Done, out: list[Instruction]) -> None:
        running = worker.running
        if running is None or worker.seq != done.seq:
            self._kill(worker, "confused", out)
            return
        worker.running, worker.deadline, worker.told = None, 0.0, False
        self._cancelling.pop(running.id, None)
        self._let_go(running)
        out.append(Ended(ended(running, done, worker.pid)))

    def _hand_out(self, now: float, out: list[Instruction]) -> list[Instruction]:
        """Give queued tasks to workers: idle ones first, then some ahead to those with quick tasks."""
        if self._stopped:
            return out
        lacking, blocked = "", False
        while self.queue and not lacking and not blocked:
            if self.queue.first.resources is not None:
                lacking, blocked = self._give_lease(self.queue.first, out)
            else:
                lacking = self._rooms.deal(self.queue.tasks, self.queue.plain, self.codes, now, out)
                blocked = bool(self.queue) and self.queue.first.resources is None
        if lacking:
            self._want(lacking, out)
        if (lacking or blocked or not self.queue) and (behind := self._rooms.crowded()) is not None:
            out.append(Reclaim(behind.number))
        return out

    def _give_lease(self, task: Assignment, out: list[Instruction]) -> tuple[str, bool]:
        """Let the first task begin if all that it needs is free; return what code it lacks, and whether it waits."""
        needs, body = task.resources, self.codes.get(task.code)
        if body is None or needs is None:
            return task.code, False
        idle = self._rooms.idle(needs.cores)
        if (lease := self.leases.grant(task.id, needs, idle)) is None:
            return "", True
        out.append(self._rooms.give(idle[0], self.queue.take(), body, lease))
        for worker in lease.resting:
            self._rooms.place(worker)
        return "", False
