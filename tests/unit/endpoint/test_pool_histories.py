"""The pool under generated histories: simulated workers, channels with a delay, deaths at any moment."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from upon.dispatcher.protocol import Assignment
from upon.endpoint.channel import Began, Code, Done, FromWorker, Retire, Task, Up
from upon.endpoint.decisions.instructions import Back, Died, Ended, Fork, Give, Instruction, Kill, Lack, Reclaim, Slow
from upon.endpoint.decisions.leases import Offer
from upon.endpoint.decisions.pool import Pool
from upon.endpoint.decisions.worker_record import NOWHERE, Worker, next_event
from upon.messages import Resources

CODES = ("a", "b")
PROMISES = [
    *[None] * 4,
    Resources(cores=2),
    Resources(memory=3),
    Resources(cores=3, accelerators=1),
    Resources(accelerators=2, memory=2),
]
TIMEOUTS = st.sampled_from([0.0, 0.0, 0.02, 1.0])


@dataclass
class Process:
    """A worker as the kernel sees it."""

    tasks: list[Task] = field(default_factory=list)
    tokens: deque[int] = field(default_factory=deque)
    codes: set[str] = field(default_factory=set)
    said: deque[FromWorker] = field(default_factory=deque)  # what the manager has not heard yet
    runs: int | None = None
    alive: bool = True


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.pool = Pool(3, offer=Offer(memory=4, accelerators=("g0", "g1"), cores=(0, 1, 2)))
        self.promised: dict[str, Resources] = {}
        self.processes: dict[int, Process] = {}
        self.lacking: set[str] = set()
        self.ids = 0
        self.open: set[str] = set()
        self.timeouts: dict[str, float] = {}
        self.cancelled: set[str] = set()
        self.spared: set[str] = set()  # cancelled unless they had begun
        self.began: set[str] = set()
        self.asked: set[str] = set()  # back
        self.carry(self.pool.start())

    def carry(self, instructions: list[Instruction]) -> None:
        todo = deque(instructions)
        while todo:
            one = todo.popleft()
            match one:
                case Fork(worker):
                    assert worker not in self.processes
                    self.processes[worker] = Process(said=deque([Up(worker)]))
                    self.pool.forked(worker, worker)
                case Give(worker, messages, seqs):
                    process = self.processes[worker]
                    for message in messages:
                        if isinstance(message, Code):
                            process.codes.add(message.hash)
                        elif isinstance(message, Task):
                            assert message.code in process.codes, "code comes before the first task that uses it"
                            process.tasks.append(message)
                    assert [m.seq for m in messages if isinstance(m, Task)] == seqs
                    assert not process.tokens or not seqs or process.tokens[-1] < seqs[0], "tokens in order"
                    process.tokens.extend(seqs)
                case Reclaim(worker):
                    tokens = self.processes[worker].tokens
                    back = frozenset(tokens)
                    tokens.clear()
                    todo.extend(self.pool.reclaimed(worker, back, self.now))
                case Kill(worker):
                    assert not self.processes[worker].tokens, "what it has not begun is taken back first"
                    self.processes[worker].alive = False
                case Ended(outcome):
                    self.open.remove(outcome.id)  # KeyError: a second ending
                    if outcome.failure is not None and outcome.failure.type == "TaskTimeout":
                        assert self.timeouts[outcome.id], "timed out without a timeout"
                    if outcome.status == "cancelled":
                        assert outcome.id in self.cancelled | self.spared
                        assert outcome.id in self.cancelled or not outcome.started, "it had begun"
                case Died(death):
                    self.open.remove(death.id)
                    assert death.id in self.began, "lost without having begun"
                case Back(assignments):
                    for given in assignments:
                        assert given.id not in self.began, "given back, and begun"
                        assert given.id in self.asked or self.pool.draining
                        self.open.remove(given.id)
                case Lack(code):
                    self.lacking.add(code)
                case Slow(begun):
                    assert begun.id in self.open

    @rule(
        count=st.sampled_from([1, 1, 2, 3, 5, 90]),
        code=st.sampled_from(CODES),
        timeout=st.sampled_from([0.0, 0.0, 0.02, 1.0]),
        resources=st.sampled_from(PROMISES),
    )
    def tasks_arrive(self, count: int, code: str, timeout: float, resources: Resources | None) -> None:
        new = [Assignment(f"t{self.ids + i}", 1, code, "f", b"x", 0, timeout, "", resources) for i in range(count)]
        self.promised |= {one.id: resources or Resources() for one in new}
        self.ids += count
        self.open |= {one.id for one in new}
        self.timeouts |= {one.id: timeout for one in new}
        self.carry(self.pool.assign(new, self.now))

    @precondition(lambda self: self.lacking)
    @rule(data=st.data())
    def code_arrives(self, data: st.DataObject) -> None:
        code = data.draw(st.sampled_from(sorted(self.lacking)))
        self.lacking.discard(code)
        self.carry(self.pool.code(Code(code, b"body"), self.now))

    @rule(data=st.data(), steps=st.integers(1, 5), heard=st.booleans())
    def worker_works(self, data: st.DataObject, steps: int, heard: bool) -> None:
        """A worker ends what it runs, or begins what it has a token for, some times over."""
        number = data.draw(st.sampled_from(sorted(self.processes)))
        for _ in range(steps):
            self.work(number)
            if heard:
                self.hear(number, 100)
            if number not in self.processes or not self.processes[number].alive:
                return

    def work(self, number: int) -> None:
        process = self.processes[number]
        if not process.alive:
            return
        if process.runs is not None:
            process.said.append(Done(process.runs, 1, 2, b"m\xc0"))
            process.runs = None
        elif process.tokens:
            seq = process.tokens.popleft()
            while process.tasks[0].seq != seq:
                process.tasks.pop(0)
            process.tasks.pop(0)
            process.runs = seq
            id = self.id_of(number, seq)
            assert id not in self.began, "begun twice"
            self.began.add(id)
            process.said.append(Began(seq, 1))

    @rule(data=st.data())
    def worker_retires(self, data: st.DataObject) -> None:
        """Its task has left what cannot be put back; it ends by itself unless it is killed before."""
        number = data.draw(st.sampled_from(sorted(self.processes)))
        process = self.processes[number]
        if process.alive and process.runs is not None:
            process.said.extend((Done(process.runs, 1, 2, b"m\xc0"), Retire("left 1 threads running")))
            process.runs, process.alive = None, False

    def id_of(self, number: int, seq: int) -> str:
        return next(assignment.id for at, assignment in self.pool.workers[number].ahead if at == seq)

    @rule(data=st.data(), many=st.booleans())
    def worker_is_heard(self, data: st.DataObject, many: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.processes)))
        self.hear(number, 100 if many else 1)

    def hear(self, number: int, count: int) -> None:
        said = self.processes[number].said
        messages = [said.popleft() for _ in range(min(count, len(said)))]
        if messages:
            self.carry(self.pool.heard(number, messages, self.now))

    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        self.processes[data.draw(st.sampled_from(sorted(self.processes)))].alive = False

    @precondition(lambda self: any(not process.alive for process in self.processes.values()))
    @rule()
    def death_is_noticed(self) -> None:
        number = next(number for number, process in self.processes.items() if not process.alive)
        self.hear(number, 1000)
        del self.processes[number]
        self.carry(self.pool.exited(number, -9, "", self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), running=st.booleans())
    def task_is_cancelled(self, data: st.DataObject, running: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.open)))
        (self.cancelled if running else self.spared).add(id)
        self.carry(self.pool.cancel(id, self.now, running=running))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def tasks_are_asked_back(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.open)), min_size=1, max_size=5))
        self.asked |= set(ids)
        self.carry(self.pool.give_back(ids, self.now))
        for worker in self.pool.workers.values():
            assert not set(ids) & {one.id for _, one in worker.ahead} - self.began

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.3, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.pool.wake_at:
            self.carry(self.pool.tick(self.now))
            assert self.pool.wake_at > self.now

    @invariant()
    def every_task_is_in_one_place(self) -> None:
        pool = self.pool
        places = [one.id for one in pool.queue]
        for worker in pool.workers.values():
            places += [one.id for _, one in worker.ahead]
            places += [worker.running.id] if worker.running else []
            assert worker.ahead_bytes == sum(len(one.payload) for _, one in worker.ahead)
        assert sorted(places) == sorted(self.open)
        assert pool.busy + pool.queued == len(self.open)

    @invariant()
    def what_is_cancelled_does_not_run_on(self) -> None:
        for worker in self.pool.workers.values():
            assert worker.dying or worker.running is None or worker.running.id not in self.cancelled

    @invariant()
    def slots_count_right(self) -> None:
        assert len(self.pool.workers) + len(self.pool._forks_due) == self.pool.slots
        assert set(self.pool.workers) == set(self.processes)

    @invariant()
    def nothing_waits_while_a_worker_is_free(self) -> None:
        workers = [one for one in self.pool.workers.values() if one.up and not one.dying and not one.resting]
        if any(worker.running is None and not worker.ahead for worker in workers):
            first = self.pool.queue.first if self.pool.queue else None
            assert first is None or first.code in self.lacking or first.resources is not None
            assert not any(worker.running and self.processes[worker.number].tokens for worker in workers), (
                "a task waits behind another"
            )

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        """By what runs as the kernel sees it: each task's cores, memory and accelerators are its own."""
        needs = []
        for number, process in self.processes.items():
            worker = self.pool.workers[number]
            if process.alive and process.runs is not None:
                begun = worker.running is not None and worker.seq == process.runs
                needs.append(
                    self.promised[worker.running.id if begun and worker.running else self.id_of(number, process.runs)]
                )
        shaped = [one for one in needs if one != Resources()]
        assert not shaped or sum(one.cores for one in needs) <= self.pool.slots
        assert sum(one.memory for one in needs) <= 4
        assert sum(one.accelerators for one in needs) <= 2
        leases = self.pool.leases._leases.values()
        own = [name for lease in leases for name in (*lease.accelerators, *lease.cores)]
        assert len(own) == len(set(own))
        resting = [worker.number for worker in self.pool.workers.values() if worker.resting]
        assert set(resting) <= {worker.number for lease in leases for worker in lease.resting}

    @invariant()
    def each_worker_is_where_the_index_has_it(self) -> None:
        rooms = self.pool._rooms
        held: dict[str, Worker] = {}
        for worker in self.pool.workers.values():
            tasks = [*(one for _, one in worker.ahead), *([worker.running] if worker.running else [])]
            held |= {one.id: worker for one in tasks}
            assert worker.load == (len(tasks) if worker.up and not (worker.dying or worker.resting) else NOWHERE)
            assert worker.quick in (NOWHERE, len(worker.ahead))
            assert self.pool.wake_at <= next_event(worker)
        for levels, name in ((rooms._loads, "load"), (rooms._quick, "quick")):
            placed = {worker.number: level for level, workers in levels.items() for worker in workers.values()}
            levelled = {n: level for n, one in self.pool.workers.items() if (level := getattr(one, name)) != NOWHERE}
            assert placed == levelled
            assert all(levels.values())
        assert rooms.count == sum(worker.load != NOWHERE for worker in self.pool.workers.values())
        assert rooms.holders == held

    def teardown(self) -> None:
        """From any state, workers that go on working end everything."""
        for _ in range(20 * self.ids + 100):
            if not self.open:
                return
            for number, process in list(self.processes.items()):
                if not process.alive:
                    self.death_is_noticed()
                    break
                self.work(number)
                self.hear(number, 1000)
            for code in sorted(self.lacking):
                self.lacking.discard(code)
                self.carry(self.pool.code(Code(code, b"body"), self.now))
            self.now += 0.001
            if self.now >= self.pool.wake_at:
                self.carry(self.pool.tick(self.now))
        assert not self.open, "the pool does not come to an end"


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
