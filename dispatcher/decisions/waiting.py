"""Tasks that wait for a slot: which one is next. Fair between accounts, first come first served within each.

    add ─▶ lane (account, function, …) ─▶ next(level): the lane to serve, of those that may go so deep ─▶ take

An *account* is who asked: the group of an executor's tasks, else the rule that fired. Between accounts: start-time
fair queueing. An account's *tag* is the work it has been given, in seconds of a slot; the one with the smallest tag
is served, and one that comes anew begins where the others are. So a million tasks of one delay ten of another by no
more than a fair share, and long tasks count for what they are. (Goyal, Vin, Cheng: Start-time Fair Queueing, SIGCOMM
1996. When a task ends is not known before: its function's usual time stands for it, and the difference is charged
when it has ended.) Within an account tasks go in their order, except that a function whose calls may not be queued
behind others waits alone.

How deep a lane may go (tasks per slot, `Depths`) is its function's; lanes of equal depth share a heap, so that finding
the next one costs O(depths + log accounts), and nothing when no manager has room. Tasks that need more than a slot
(`needs`) wait in lanes of their own, which may be set aside: until the next turn, or until something is there again.

Pure. Not here: where a task goes (`capacity`), and what an account is (`tasks`).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import takewhile

from upon.dispatcher.decisions.needs import Needs
from upon.dispatcher.decisions.tasks import Task

PREFETCH = 1
"""Tasks per slot that wait at a manager, at least: no worker waits for a round trip."""
HORIZON = 0.02
"""Seconds of work that wait at a manager when tasks are short."""
MAX_PREFETCH = 64
"""Tasks per slot that wait at a manager, at most."""
UNKNOWN = 0.01
"""Seconds that a call counts of whose function nothing is known yet."""
LEAST = 0.0001
"""Seconds that a call counts at least: it also costs what is around it."""
QUANTUM = 0.002
"""Seconds of work that an account may be ahead of the next: tasks travel in batches."""
REMEMBERED = 10_000
"""Accounts without waiting tasks whose tags are remembered."""
MANY = 1000
"""Void entries of a heap that are not worth a clearing."""
FUNCTIONS = 100_000
"""Functions whose times are remembered."""
PRIORITY = 1 << 40
"""What a step of priority counts among the orders of tasks: more than there ever are."""
SHAPED = 1 << 31
"""The depth of lanes that need resources: they look for a manager that has them, whatever the site's level."""


class Depths:
    """How many tasks of a function a manager may hold per slot, from how long its calls take.

    Args:
        prefetch: tasks per slot that wait there, at least.
        horizon: s of work that wait there when tasks are short.
    """

    def __init__(self, prefetch: int = PREFETCH, horizon: float = HORIZON) -> None:
        self._prefetch, self._horizon = prefetch, horizon
        self._seconds: OrderedDict[str, float] = OrderedDict()
        self._depths: dict[str, int] = {}

    def of(self, code: str) -> int:
        """Return how many tasks of this function there may be per slot, the one that runs included."""
        return self._depths.get(code, 1 + self._prefetch)

    def cost(self, code: str) -> float:
        """Return the seconds that a call is expected to take."""
        return max(LEAST, self._seconds.get(code, UNKNOWN))

    def observe(self, code: str, seconds: Sequence[float]) -> bool:
        """Take in how long tasks took (at least one); tell whether the function's depth is another one now.

        A longer call counts at once: work queued behind it would wait while other managers are idle. Depths are
        powers of two (and one), so that they do not change with every call.
        """
        known = self._seconds.get(code)
        if known is None:
            if len(self._seconds) >= FUNCTIONS:
                self._depths.pop(self._seconds.popitem(last=False)[0], None)
            known = seconds[0]
        longest, count = max(seconds), len(seconds)
        weight = 0.9**count
        now = longest if longest > known else known * weight + sum(seconds) / count * (1 - weight)
        self._seconds[code] = now
        if not self._horizon:
            return False
        fitting = int(self._horizon / max(now, self._horizon / MAX_PREFETCH))
        deep = 1 + max(self._prefetch, 1 << fitting.bit_length() - 1 if fitting else 0)
        if deep == self._depths.get(code, 1 + self._prefetch):
            return False
        self._depths[code] = deep
        return True


_Key = str | tuple[str, int, Needs | None]


def _key(task: Task) -> _Key:
    """Return which lane of its account a task is for."""
    invocation = task.invocation
    if task.needs is None and not invocation.priority:
        return invocation.code
    return invocation.code, invocation.priority, task.needs


class Lane:
    """Tasks of one account, function, priority and needs, in order."""

    __slots__ = ("account", "code", "key", "needs", "number", "tasks")

    def __init__(self, account: _Account, key: _Key, code: str, needs: Needs | None) -> None:
        self.account, self.key, self.code, self.needs = account, key, code, needs
        self.tasks: OrderedDict[str, Task] = OrderedDict()
        self.number = 0  # of its entry in a heap


class _Account:
    __slots__ = ("lanes", "tag")

    def __init__(self, tag: float) -> None:
        self.tag = tag
        self.lanes: dict[_Key, Lane] = {}  # none is empty


_Entry = tuple[float, int, int, Lane]  # the account's tag, the order of the lane's first task, a number, the lane


class Waiting:
    """All tasks that are ready.

    Args:
        depths: of functions; default those of this file's constants.
    """

    def __init__(self, depths: Depths | None = None) -> None:
        self.depths = depths or Depths()
        self._accounts: dict[str, _Account] = {}
        self._tags: OrderedDict[str, float] = OrderedDict()  # of accounts that have nothing waiting now
        self._now = 0.0  # the tag that was served last
        self._heaps: dict[int, list[_Entry]] = {}  # by depth; an entry may be out of date, see `_first`
        self._aside: dict[str, dict[Lane, None]] = {}  # by what they wait for
        self._numbers = 0
        self._count = 0
        self._back = self._front = 0  # orders given so far, to the back and to the front

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Task]:
        """Yield all tasks, by account and function."""
        for account in self._accounts.values():
            for lane in account.lanes.values():
                yield from lane.tasks.values()

    def of(self, code: str) -> list[Task]:
        """Return the tasks of one function, of every account."""
        lanes = (lane for account in self._accounts.values() for lane in account.lanes.values())
        return [task for lane in lanes if lane.code == code for task in lane.tasks.values()]

    def add(self, task: Task, *, first: bool = False) -> None:
        """Let a task wait.

        Args:
            first: before all others of its account: it had been placed, and had not begun.
        """
        account = self._accounts.get(task.account)
        if account is None:
            tag = max(self._now, self._tags.pop(task.account, 0.0))
            account = self._accounts[task.account] = _Account(tag)
        key = _key(task)
        lane = account.lanes.get(key)
        if lane is None:
            lane = account.lanes[key] = Lane(account, key, task.invocation.code, task.needs)
        new = not lane.tasks
        lane.tasks[task.id] = task
        self._count += 1
        if first:
            self._front -= 1
            task.order = self._front - task.invocation.priority * PRIORITY
            lane.tasks.move_to_end(task.id, last=False)
        else:
            self._back += 1
            task.order = self._back - task.invocation.priority * PRIORITY
        if new or first:
            self._push(lane)

    def remove(self, task: Task) -> None:
        """A task waits no more."""
        lane = self._accounts[task.account].lanes[_key(task)]
        del lane.tasks[task.id]
        self._count -= 1
        if not lane.tasks:
            self._close(lane, task.account)

    def next(self, level: int, *, shaped: bool = True) -> Lane | None:
        """Return the lane to serve now: the fairest of those that may go deeper than `level` tasks per slot.

        Args:
            shaped: one that needs resources, too, however full managers are.
        """
        best: _Entry | None = None
        for depth in self._heaps:
            if depth <= level or (depth == SHAPED and not shaped):
                continue
            if (entry := self._first(depth)) is not None and (best is None or entry < best):
                best = entry
        return None if best is None else best[3]

    def turn(self, lane: Lane) -> int:
        """Return how many tasks of a lane that `next` named may be served in one go, so that others have their turn."""
        account, most = lane.account, len(lane.tasks)
        if most > 1 and len(account.lanes) > 1:
            others = (_order(one) for one in account.lanes.values() if one is not lane and one.number >= 0)
            if (behind := min(others, default=None)) is not None:
                most = max(1, sum(1 for _ in takewhile(lambda task: task.order < behind, lane.tasks.values())))
        if most > 1 and len(self._accounts) > 1:
            number, lane.number = lane.number, -1  # out of the way: who is next?
            next_ = min((entry for depth in self._heaps if (entry := self._first(depth)) is not None), default=None)
            lane.number = number
            self._push(lane)
            if next_ is not None:
                ahead = (next_[0] - account.tag + QUANTUM) / self.depths.cost(lane.code)
                most = min(most, max(1, int(ahead)))
        return most

    def set_aside(self, lane: Lane, until: str = "") -> None:
        """Leave out a lane that cannot go now.

        Args:
            until: the name that is to be given back first; default: until the next turn.
        """
        lane.number = -1
        self._aside.setdefault(until, {})[lane] = None

    def bring_back(self, until: str = "") -> None:
        """Let lanes that were set aside go again."""
        for lane in self._aside.pop(until, ()):
            if lane.tasks and lane.number < 0:
                self._push(lane)

    def take(self, lane: Lane, count: int) -> list[Task]:
        """Take so many tasks from the front of a lane; they are charged to its account."""
        account, cost = lane.account, self.depths.cost(lane.code) * slots_of(lane.needs)
        self._now = max(self._now, account.tag)
        taken = []
        for _ in range(count):
            _, task = lane.tasks.popitem(last=False)
            task.charged = cost
            taken.append(task)
        self._count -= count
        account.tag += cost * count
        if lane.tasks:
            self._push(lane)
        elif taken:
            self._close(lane, taken[0].account)
        return taken

    def charge(self, account: str, seconds: float) -> None:
        """Charge what a task took beyond what was expected (negative: less)."""
        if (known := self._accounts.get(account)) is not None:
            known.tag += seconds
            if seconds < 0:  # its lanes' entries are behind it now, and would let a lane that comes anew go first
                for lane in known.lanes.values():
                    if lane.number >= 0:
                        self._push(lane)
        elif account in self._tags:
            self._tags[account] += seconds

    def observe(self, code: str, seconds: Sequence[float]) -> None:
        """Take in how long tasks of a function took."""
        if self.depths.observe(code, seconds):
            for account in self._accounts.values():
                for lane in account.lanes.values():
                    if lane.code == code and lane.number >= 0:
                        self._push(lane)

    # ------------------------------------------------------------------------------------------------- the order

    def _depth(self, lane: Lane) -> int:
        if lane.needs is None:
            return self.depths.of(lane.code)
        return SHAPED if lane.needs.shaped else 1  # what waits at a manager would keep others from what is limited

    def _push(self, lane: Lane) -> None:
        """Enter a lane into the heap of its depth, under its present key; an entry it has is void."""
        heap = self._heaps.setdefault(self._depth(lane), [])
        self._numbers += 1
        lane.number = self._numbers
        heapq.heappush(heap, (lane.account.tag, _order(lane), lane.number, lane))
        if len(heap) > 2 * self._count + MANY:
            heap[:] = [entry for entry in heap if entry[2] == entry[3].number]
            heapq.heapify(heap)

    def _first(self, depth: int) -> _Entry | None:
        """Return the first entry of a heap that holds. An entry's tag is never above its account's."""
        heap = self._heaps[depth]
        while heap:
            entry = tag, order, number, lane = heap[0]
            if number != lane.number:
                heapq.heappop(heap)
            elif (lane.account.tag, _order(lane)) > (tag, order):
                heapq.heapreplace(heap, (lane.account.tag, _order(lane), number, lane))
            else:
                return entry
        return None

    def _close(self, lane: Lane, name: str) -> None:
        lane.number = -1
        account = lane.account
        del account.lanes[lane.key]
        if not account.lanes:
            del self._accounts[name]
            self._tags[name] = account.tag
            if len(self._tags) > REMEMBERED:
                self._tags.popitem(last=False)


def slots_of(needs: Needs | None) -> int:
    """Return how many slots a task takes."""
    return 1 if needs is None else needs.resources.cores


def _order(lane: Lane) -> int:
    return next(iter(lane.tasks.values())).order
