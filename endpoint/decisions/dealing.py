"""Who gets which queued task: a share for each idle worker, and some ahead for those whose tasks are quick.

A worker that holds tasks ahead needs no round trip between them, which makes short tasks fast. Nothing is risked by
it: what waits behind a long task is taken back as soon as another worker has nothing to do (`Rooms.crowded`).

The workers are indexed by what they hold, and each is put in its place again after it has changed (`Rooms.place`): so
an event costs what it changes, with two workers or with hundreds.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from msgspec.structs import replace

from upon.dispatcher.protocol import Assignment
from upon.endpoint.channel import MAX_AHEAD, Code, Task, ToWorker
from upon.endpoint.decisions.code import CodeCache
from upon.endpoint.decisions.instructions import Give, Instruction
from upon.endpoint.decisions.leases import Lease
from upon.endpoint.decisions.worker_record import NOWHERE, Worker

AHEAD_BYTES = 1024 * 1024
"""Bytes of arguments past which a worker gets no further task ahead."""
QUICK = 0.01
"""Seconds: a worker whose task has run for longer gets nothing ahead."""

Level = dict[int, Worker]
"""Workers by number."""


class Rooms:
    """The workers that can be given tasks, by how many they hold.

    Attributes:
        count: how many they are.
        holders: who has which task, by id; who takes one from a worker takes it out of here.
    """

    def __init__(self) -> None:
        self.count = 0
        self.holders: dict[str, Worker] = {}
        self._loads: dict[int, Level] = {}  # tasks held, the running one included → workers; no level is empty
        self._quick: dict[int, Level] = {}  # tasks ahead → workers whose task began a moment ago, and has room behind

    def place(self, worker: Worker, *, fresh: bool = False) -> None:
        """Put a worker where it belongs now; `fresh`: its task has just begun."""
        runs, ahead = worker.running is not None, len(worker.ahead)
        load = ahead + runs if worker.up and not worker.dying and not worker.resting else NOWHERE
        quick = NOWHERE
        if runs and load != NOWHERE and ahead <= MAX_AHEAD // 2 and (fresh or worker.quick != NOWHERE):
            quick = ahead
        self._put(worker, load, quick)

    def leave(self, worker: Worker) -> None:
        """A worker is no more."""
        self._put(worker, NOWHERE, NOWHERE)

    def _put(self, worker: Worker, load: int, quick: int) -> None:
        if load != worker.load:
            self.count += (worker.load == NOWHERE) - (load == NOWHERE)
            _move(self._loads, worker, worker.load, load)
            worker.load = load
        if quick != worker.quick:
            _move(self._quick, worker, worker.quick, quick)
            worker.quick = quick

    def crowded(self) -> Worker | None:
        """Return the worker where tasks wait behind another one while some worker has nothing to do."""
        if 0 not in self._loads or (most := max(self._loads)) < 2:
            return None
        return next(iter(self._loads[most].values()))

    def _open(self, share: int, most: int, now: float) -> list[tuple[Worker, int]]:
        """Return workers that can be given something, and how much: the idle ones first; at most so many workers."""
        rooms = [(worker, share) for worker in islice(self._loads.get(0, {}).values(), most)]
        slow: list[Worker] = []
        for ahead in sorted(self._quick):
            if ahead >= share or len(rooms) >= most:
                break
            for worker in self._quick[ahead].values():
                if now - worker.since >= QUICK:
                    slow.append(worker)
                elif worker.ahead_bytes < AHEAD_BYTES or not ahead:
                    rooms.append((worker, share - ahead))
                    if len(rooms) >= most:
                        break
        for worker in slow:
            self._put(worker, worker.load, NOWHERE)
        return rooms

    def idle(self, most: int) -> list[Worker]:
        """Return workers that have nothing to do, at most so many."""
        return list(islice(self._loads.get(0, {}).values(), most))

    def deal(self, queue: deque[Assignment], count: int, codes: CodeCache, now: float, out: list[Instruction]) -> str:
        """Move tasks from the queue to workers, one to each in turn, so that they begin in the queue's order.

        A first task whose code is not here stays, and all behind it: else a later one could take the last idle worker.

        Args:
            queue: what waits; it is shortened.
            count: how many of its first ones are to be dealt with.
            codes: where bodies are.
            now: monotonic s.
            out: gets a Give for each worker that has got something.

        Returns:
            The code that the first task waits for, as it is not in the cache (any more); empty if it has it.
        """
        lacking = ""
        if not count or not self.count:
            return lacking
        share = min(MAX_AHEAD, -(-count // self.count))
        rooms = self._open(share, count, now)
        hands: list[tuple[Worker, list[ToWorker], list[int]]] = [(worker, [], []) for worker, _ in rooms]
        for turn in range(max((room for _, room in rooms), default=0)):
            if not count or lacking:
                break
            for (worker, messages, seqs), (_, room) in zip(hands, rooms, strict=True):
                if turn < room and count and not lacking and (worker.ahead_bytes < AHEAD_BYTES or not worker.ahead):
                    task = queue[0]
                    if task.code not in worker.codes:
                        body = codes.get(task.code)
                        if body is None:
                            lacking = task.code
                            continue
                        worker.codes.add(task.code)
                        messages.append(body)
                    queue.popleft()
                    count -= 1
                    seqs.append(self._enter(worker, task))
                    messages.append(for_worker(task, seqs[-1]))
        for worker, messages, seqs in hands:
            if messages:
                self.place(worker)
                out.append(Give(worker.number, messages, seqs))
        return lacking

    def give(self, worker: Worker, task: Assignment, body: Code, lease: Lease) -> Give:
        """Give an idle worker a task that has something for itself."""
        messages: list[ToWorker] = []
        if task.code not in worker.codes:
            worker.codes.add(task.code)
            messages.append(body)
        seq = self._enter(worker, task)
        messages.append(
            replace(for_worker(task, seq), accelerators=lease.accelerators, cores=lease.cores, memory=lease.memory)
        )
        self.place(worker)
        return Give(worker.number, messages, [seq])

    def _enter(self, worker: Worker, task: Assignment) -> int:
        """Note who has a task; return its number there."""
        seq, worker.next_seq = worker.next_seq, worker.next_seq + 1
        worker.ahead.append((seq, task))
        worker.ahead_bytes += len(task.payload)
        self.holders[task.id] = worker
        return seq


def for_worker(task: Assignment, seq: int) -> Task:
    """Return a task as a worker needs it."""
    return Task(seq, task.code, task.function, task.payload, task.items, task.cause, task.id)


def _move(levels: dict[int, Level], worker: Worker, old: int, new: int) -> None:
    if old != NOWHERE:
        del levels[old][worker.number]
        if not levels[old]:
            del levels[old]
    if new != NOWHERE:
        levels.setdefault(new, {})[worker.number] = worker
