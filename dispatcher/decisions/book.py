"""The dispatcher's book: every table it keeps, and the moves that keep them consistent with each other.

    tasks       id → Task                  all that is not stored
    ready       Task, in a fair order      waits for a free slot (`waiting`)
    wanting     code → {id → Task}         waits for its function's code
    managers    id → Manager               each with the tasks it holds (`capacity`)
    unsure      id → Task                  done long ago, perhaps
    offsets     what may be committed      done   ids whose results are in Kafka
    starts      id → attempts that began under an earlier dispatcher, not read from Kafka yet
    claims      id → (manager, attempt)    held by a manager, not read from Kafka yet (the dispatcher restarted)
    early       id → (manager, outcome)    the same, and finished
    cancels     id → deadline, running?    cancelled before it was read

Pure. `check_invariants` says what is always true; tests call it after every step. Decisions are in `state`.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Sequence

from upon.dispatcher.decisions.capacity import Capacity, Manager
from upon.dispatcher.decisions.needs import Limits, Needs
from upon.dispatcher.decisions.past import DoneIds, Past
from upon.dispatcher.decisions.tasks import HELD, Task, TaskState
from upon.dispatcher.decisions.waiting import Depths, Waiting
from upon.dispatcher.protocol import Outcome
from upon.dispatcher.wire import outcome_bytes
from upon.kafka.offsets import Offsets

MAX_EARLY = 100_000
"""Early outcomes kept; past this their tasks are run again."""
MAX_EARLY_BYTES = 64 * 1024 * 1024
"""Bytes of early outcomes kept; past this their tasks are run again."""


class Book:
    """All that a dispatcher knows.

    Args:
        past: what was found in Kafka at the start.
        depths: how many tasks of a function a manager may hold.
    """

    def __init__(self, past: Past | None = None, depths: Depths | None = None) -> None:
        self.tasks: dict[str, Task] = {}
        self.ready = Waiting(depths)
        self.wanting: dict[str, dict[str, Task]] = {}
        self.capacity = Capacity()
        self.limits = Limits()
        self.managers: dict[str, Manager] = self.capacity.managers
        self.offsets: Offsets[int] = Offsets()
        past = past or Past()
        self.done, self.starts, self.since = past.done, past.starts, past.since
        self.long_done: DoneIds | None = None  # from before `since`, once that is read
        self.unsure: dict[str, Task] = {}
        self.claims: dict[str, tuple[str, int]] = {}
        self.early: dict[str, tuple[str, Outcome]] = {}
        self.early_bytes = 0
        self.cancels: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self.alarms: list[tuple[float, str]] = []  # (due, task id); may be out of date
        self.bytes = 0
        self.codes: set[str] = set()

    # ------------------------------------------------------------------------------------------- tasks

    def is_done(self, id: str) -> bool:
        """Tell whether the result of this invocation is known to be in Kafka."""
        return id in self.done or (self.long_done is not None and id in self.long_done)

    def open(self, task: Task) -> None:
        """Enter a task that has just arrived."""
        self.tasks[task.id] = task
        self.bytes += task.size

    def move(self, task: Task, to: TaskState, *, first: bool = False) -> None:
        """Take a task to another state, and from its table to that state's.

        Args:
            first: to the front of `ready`, for what had been placed and had not begun.

        Raises:
            IllegalTransition: see `Task.go`.
        """
        before = task.state
        task.go(to)
        if before in HELD:
            manager = self.managers[task.manager]
            manager.running += (to == "running") - (before == "running")
            if to not in HELD:
                del manager.tasks[task.id]
                if task.needs is not None:
                    self._free(manager, task.needs)
            self.capacity.moved(manager)
        elif before == "ready":
            self.ready.remove(task)
        elif before == "unsure":
            del self.unsure[task.id]
        elif before == "needs_code":
            waiting = self.wanting[task.invocation.code]
            del waiting[task.id]
            if not waiting:
                del self.wanting[task.invocation.code]
        if to == "ready":
            self.ready.add(task, first=first)
        elif to == "stored":
            del self.tasks[task.id]
            self.bytes -= task.size
            self.done.add(task.id)
            for partition, offset in task.positions:
                self.offsets.close(partition, offset)
        elif to == "assigned":
            manager = self.managers[task.manager]
            manager.tasks[task.id] = task
            if task.needs is not None:
                self._use(manager, task.needs)
            self.capacity.moved(manager)
        elif to == "needs_code":
            self.wanting.setdefault(task.invocation.code, {})[task.id] = task
            self.remind(task)
        elif to == "unsure":
            self.unsure[task.id] = task
        elif to == "retrying":
            self.remind(task)

    def assign(self, manager: Manager, tasks: Sequence[Task]) -> None:
        """Give a manager tasks that were just taken from `ready`."""
        for task in tasks:
            task.go("assigned")
            task.manager = manager.id
            manager.tasks[task.id] = task
            if task.needs is not None:
                self._use(manager, task.needs)
        self.capacity.moved(manager)

    def _use(self, manager: Manager, needs: Needs) -> None:
        self.capacity.take(manager, needs.resources)
        self.limits.take(needs.limits)

    def _free(self, manager: Manager, needs: Needs) -> None:
        self.capacity.take(manager, needs.resources, -1)
        self.limits.give(needs.limits)
        for name, _ in needs.limits:
            self.ready.bring_back(name)

    def resize(self, task: Task, size: int) -> None:
        """Say how many bytes are held for a task now."""
        self.bytes += size - task.size
        task.size = size

    def remind(self, task: Task) -> None:
        """Have `due` name a task that waits when its time, `task.due`, has come."""
        heapq.heappush(self.alarms, (task.due, task.id))

    def due(self, mono: float) -> list[Task]:
        """Return the tasks whose wait is over, each once, though it may have begun to wait twice in one turn."""
        over: dict[str, Task] = {}
        while self.alarms and self.alarms[0][0] <= mono:
            due, id = heapq.heappop(self.alarms)
            task = self.tasks.get(id)
            if task is not None and task.due == due and task.state in ("needs_code", "retrying"):
                over[id] = task
        return list(over.values())

    # ------------------------------------------------------------- what managers hold and was not read yet

    def keep_early(self, manager: str, outcome: Outcome) -> bool:
        """Keep an outcome whose invocation has not been read yet; False: there is no room, it is to be run again."""
        if outcome.id in self.early:
            return True
        size = outcome_bytes(outcome)
        if len(self.early) >= MAX_EARLY or self.early_bytes + size > MAX_EARLY_BYTES:
            self.claims.pop(outcome.id, None)
            return False
        self.early[outcome.id] = (manager, outcome)
        self.early_bytes += size
        return True

    def take_early(self, id: str) -> tuple[str, Outcome] | None:
        """Return such an outcome, once."""
        kept = self.early.pop(id, None)
        if kept:
            self.early_bytes -= outcome_bytes(kept[1])
        return kept

    def forget_unread(self) -> list[tuple[str, Outcome]]:
        """Forget what managers have and nobody has asked for; return the outcomes among it."""
        outcomes = list(self.early.values())
        self.claims.clear()
        self.early.clear()
        self.early_bytes = 0
        return outcomes

    # -------------------------------------------------------------------------------------- invariants

    def check_invariants(self) -> None:
        """Raise AssertionError unless everything agrees with everything else."""
        by_state: dict[str, set[str]] = {}
        for id, task in self.tasks.items():
            assert id == task.id, f"{id} is kept for {task.id}"
            assert not self.is_done(id), f"{id} is done and still kept"
            assert task.positions, f"{id} came from nowhere"
            by_state.setdefault(task.state, set()).add(id)
        assert not by_state.keys() & {"arrived", "stored"}, f"between two states: {by_state}"
        waiting = [task.id for task in self.ready]
        assert len(waiting) == len(self.ready) == len(set(waiting)), "ready is miscounted"
        assert set(waiting) == by_state.get("ready", set()), "ready does not hold the ready tasks"
        self.capacity.check_invariants()
        assert self.unsure.keys() == by_state.get("unsure", set()), "unsure does not hold what is unsure"
        wanting = {id for waiting in self.wanting.values() for id in waiting}
        assert wanting == by_state.get("needs_code", set()), "wanting does not hold the tasks without code"
        assert not self.wanting.keys() & self.codes, "code is known and waited for"
        assert all(task.invocation.code in self.codes for task in self.ready), "ready without its code"
        assert all(self.wanting.values()), "code that nobody waits for"
        held = [id for manager in self.managers.values() for id in manager.tasks]
        assert len(held) == len(set(held)), "a task is at two managers"
        assert set(held) == by_state.get("assigned", set()) | by_state.get("running", set()), "held by nobody, or idle"
        for manager in self.managers.values():
            for id, task in manager.tasks.items():
                assert task.manager == manager.id, f"{id} is at {manager.id} and says {task.manager}"
        names = Counter(
            name for m in self.managers.values() for t in m.tasks.values() if t.needs for name, _ in t.needs.limits
        )
        assert self.limits.used == names, "the use of what is limited is miscounted"
        alarms = {(due, id) for due, id in self.alarms}
        for id in by_state.get("retrying", set()) | by_state.get("needs_code", set()):
            assert (self.tasks[id].due, id) in alarms, f"nothing will wake {id}"
        assert self.bytes == sum(task.size for task in self.tasks.values()), "bytes are miscounted"
        assert self.early_bytes == sum(outcome_bytes(o) for _, o in self.early.values()), "early bytes are miscounted"
        assert not (self.claims.keys() | self.early.keys()) & self.tasks.keys(), "read, and waited for still"
        assert all(manager in self.managers for manager, _ in self.claims.values()), "claimed by who is gone"
        told = {id for id, task in self.tasks.items() if task.told}
        assert told <= by_state.get("done", set()), "somebody is to be told of what is not done"
        counts: dict[tuple[int, int], int] = {}
        for task in self.tasks.values():
            for position in task.positions:
                counts[position] = counts.get(position, 0) + 1
        open_ = self.offsets.counts()
        assert all(open_.get(position) == count for position, count in counts.items()), "an offset is not open enough"
