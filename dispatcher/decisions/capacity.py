"""Where there is room: the managers of a site by how full they are, and by the code that they have.

    level of a manager   = slots' worth of tasks that it holds // its slots        0: a slot is idle
    level of the site    = the lowest of its managers'

A manager is *stuck* if slow tasks have all its slots and others wait behind them. One without slots drains.

What needs resources begins at once or stays: `fit` finds managers that have them free. If none has, one that could is
*kept* for it: what the task needs is given to nobody else there, until enough of what runs has ended.

`deal` gives places to a function's next tasks in as many steps as there are tasks, however many managers there are:
idle slots first, at managers that have the function's code if some are found soon, else at any; then the emptiest.

Pure. Not here: which task is next, and how deep it may go (`waiting`); environments, data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from upon.dispatcher.decisions.tasks import Task
from upon.messages import Resources

NOTHING = Resources(cores=0)
LOOKS = 16
"""Managers that are looked at for one that has the code."""


@dataclass(slots=True, eq=False)
class Manager:
    """A manager as the dispatcher sees it. `warm` and `slots` are changed by `Capacity` alone."""

    id: str
    host: str
    pid: int
    workers: tuple[int, ...]
    slots: int
    python: str
    warm: set[str]  # hashes of the code it has
    heard: float  # monotonic s
    busy: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)  # what it holds
    running: int = 0  # those of them that were said to run for a while
    memory: int = 0  # bytes
    accelerators: int = 0
    level: int = -1  # where it is indexed
    more: int = 0  # slots that its tasks take beyond one each
    memory_used: int = 0
    accelerators_used: int = 0
    kept: Resources | None = None  # what is left free for a task that needs more than is free now

    @property
    def held(self) -> int:
        """How many slots' worth of tasks it holds."""
        return len(self.tasks) + self.more

    def could(self, needs: Resources) -> bool:
        """Whether it has so much, free or not."""
        return self.slots >= needs.cores and self.memory >= needs.memory and self.accelerators >= needs.accelerators

    def room(self, needs: Resources, *, kept: bool = False) -> int:
        """Return for how many tasks it has what each needs, free now; what is `kept` too, if it is for them."""
        left = NOTHING if kept or self.kept is None else self.kept
        count = (self.slots - self.held - left.cores) // needs.cores
        if needs.memory:
            count = min(count, (self.memory - self.memory_used - left.memory) // needs.memory)
        if needs.accelerators:
            count = min(count, (self.accelerators - self.accelerators_used - left.accelerators) // needs.accelerators)
        return max(0, count)

    def level_now(self) -> int:
        """Return how many tasks it holds for each slot; -1: it gets no further ones."""
        if self.kept is not None and self.held + self.kept.cores >= self.slots:
            return -1
        return self.held // self.slots if self.slots else -1


class Capacity:
    """All managers of a site.

    Levels follow what managers hold when `level` is asked for, once a turn: `moved` only notes who has changed.

    Attributes:
        managers: by id.
        stuck: of them, by id; as of the last `level`.
        slots: of all of them.
    """

    NOBODY = 1 << 30

    def __init__(self) -> None:
        self.managers: dict[str, Manager] = {}
        self.stuck: dict[str, Manager] = {}
        self.slots = 0
        self._level = self.NOBODY
        self._moved: dict[str, Manager] = {}
        self._levels: dict[int, dict[str, Manager]] = {}  # none is empty
        self._warm: dict[str, dict[str, Manager]] = {}  # by code; none is empty
        self._kept: dict[Resources, Manager] = {}  # for whom: since the last turn, and
        self._keep: dict[Resources, Manager] = {}  # in this one
        self._looked: dict[str, Manager] = {}  # all, those that were looked at longest ago first

    def add(self, manager: Manager) -> None:
        """A manager is there."""
        self.managers[manager.id] = self._looked[manager.id] = manager
        self.slots += manager.slots
        for code in manager.warm:
            self._warm.setdefault(code, {})[manager.id] = manager
        self.moved(manager)

    def remove(self, manager: Manager) -> None:
        """A manager is there no more."""
        del self.managers[manager.id], self._looked[manager.id]
        self.slots -= manager.slots
        for kept in (self._kept, self._keep):
            for needs in [needs for needs, one in kept.items() if one is manager]:
                del kept[needs]
        self._moved.pop(manager.id, None)
        self.stuck.pop(manager.id, None)
        for code in manager.warm:
            self._cool(manager, code)
        if manager.level >= 0:
            self._leave(manager)

    def resize(self, manager: Manager, slots: int, memory: int = 0, accelerators: int = 0) -> None:
        """A manager has other resources."""
        self.slots += slots - manager.slots
        manager.slots, manager.memory, manager.accelerators = slots, memory, accelerators
        self.moved(manager)

    def take(self, manager: Manager, needs: Resources, sign: int = 1) -> None:
        """A manager holds a task with these needs (`sign` = -1: it does no more)."""
        manager.more += sign * (needs.cores - 1)
        manager.memory_used += sign * needs.memory
        manager.accelerators_used += sign * needs.accelerators

    def moved(self, manager: Manager) -> None:
        """A manager holds more or fewer tasks."""
        self._moved[manager.id] = manager

    def level(self) -> int:
        """Return the lowest level of any manager; `NOBODY` without managers."""
        for manager in self._moved.values():
            if manager.running + manager.more >= manager.slots > 0 and len(manager.tasks) > manager.running:
                self.stuck[manager.id] = manager
            elif self.stuck:
                self.stuck.pop(manager.id, None)
            level = manager.level_now()
            if level != manager.level:
                if manager.level >= 0:
                    self._leave(manager)
                if level < 0:
                    continue
                manager.level = level
                self._levels.setdefault(level, {})[manager.id] = manager
                self._level = min(self._level, level)
        self._moved.clear()
        return self._level

    def idle_for_stuck(self) -> Iterator[tuple[Manager, int]]:
        """Yield the stuck managers, each once until it moves, and how many tasks of them others have idle slots for."""
        if self.level():
            return
        idle = sum(manager.slots - manager.held for manager in islice(self._levels[0].values(), LOOKS))
        while self.stuck and idle > 0:
            _, manager = self.stuck.popitem()
            count = min(idle, len(manager.tasks) - manager.running)
            idle -= count
            yield manager, count

    def warm(self, manager: Manager, code: str) -> None:
        """A manager has the code of a function."""
        manager.warm.add(code)
        self._warm.setdefault(code, {})[manager.id] = manager

    def reheat(self, manager: Manager, codes: Iterable[str]) -> None:
        """A manager has the code of these functions, and no other."""
        for code in manager.warm.difference(codes):
            self.cool(manager, code)
        for code in codes:
            self.warm(manager, code)

    def cool(self, manager: Manager, code: str) -> None:
        """A manager has this code no more."""
        if code in manager.warm:
            manager.warm.discard(code)
            self._cool(manager, code)

    def forget(self, code: str) -> None:
        """Nobody has this code any more."""
        for manager in list(self._warm.get(code, {}).values()):
            self.cool(manager, code)

    def deal(self, code: str, depth: int, count: int) -> list[tuple[Manager, int]]:
        """Deal out tasks of a function, evenly, up to the next level: who gets how many.

        Args:
            depth: tasks per slot that a manager may hold of it.
            count: how many there are, ≥ 1.

        Returns:
            At least one in all if anybody has room so deep; perhaps fewer than there are.
        """
        lowest = self.level()
        if lowest >= depth:
            return []
        level = self._levels[lowest]
        places = self._near(code, depth, level) or level
        share = -(-count // len(places))
        dealt = []
        for manager in places.values():
            left = 0 if manager.kept is None else manager.kept.cores
            given = min(share, count, manager.slots - manager.held % manager.slots - left)
            dealt.append((manager, given))
            count -= given
            if not count:
                break
        if len(dealt) < len(level):  # those of the level that were given nothing are first the next time
            for manager, _ in dealt:
                if manager.level == lowest:
                    del level[manager.id]
                    level[manager.id] = manager
        return dealt

    def fit(self, needs: Resources, count: int) -> list[tuple[Manager, int]]:
        """Find places where tasks with these needs can begin now: who gets how many; keep a manager if there is none.

        Some managers are looked at each time, those first that were not for the longest time.
        """
        found: list[tuple[Manager, int]] = []
        best: Manager | None = None
        kept = self._keep.get(needs) or self._kept.get(needs)
        if kept is not None and not kept.could(needs):
            kept = None
        some = [kept] if kept is not None else []
        some += [one for one in islice(self._looked.values(), LOOKS) if one is not kept]
        for manager in some:
            self._looked[manager.id] = self._looked.pop(manager.id)
            if room := min(count, manager.room(needs, kept=manager is kept)):
                found.append((manager, room))
                count -= room
                if not count:
                    break
            elif (
                manager.kept is None
                and manager.could(needs)
                and (best is None or manager.held * best.slots < best.held * manager.slots)
            ):
                best = manager
        if found:
            return found
        if kept is None and best is not None:
            best.kept, kept = needs, best
            self.moved(best)
        if kept is not None:
            self._keep[needs] = kept
        return []

    def turned(self) -> bool:
        """A placement is over: tell whether somebody was kept for whom nothing waits any more."""
        if not self._kept and not self._keep:
            return False
        over = [manager for needs, manager in self._kept.items() if self._keep.get(needs) is not manager]
        for manager in over:
            manager.kept = None
            self.moved(manager)
        self._kept, self._keep = self._keep, {}
        return bool(over)

    def could(self, needs: Resources) -> bool:
        """Whether any manager has so much, free or not."""
        return any(manager.could(needs) for manager in self.managers.values())

    def _near(self, code: str, depth: int, level: dict[str, Manager]) -> dict[str, Manager] | None:
        """Return managers that have a function's code, of those of the lowest level; None: it makes no difference."""
        warm = self._warm.get(code)
        if warm is None or len(warm) == len(self.managers):
            return None
        some = islice((warm if len(warm) < len(level) else level).values(), LOOKS)
        found = {one.id: one for one in some if one.level == self._level and code in one.warm}
        if not found and self._level:  # nobody is idle: a queue where the code is, before one where it is not
            deeper = [one for one in islice(warm.values(), LOOKS) if 0 <= one.level < depth]
            if deeper:
                emptiest = min(deeper, key=lambda one: one.level)
                return {emptiest.id: emptiest}
        return found or None

    def check_invariants(self) -> None:
        """Raise AssertionError unless the indexes agree with the managers (for tests)."""
        lowest = self.level()
        assert self.slots == sum(manager.slots for manager in self.managers.values())
        for manager in self.managers.values():
            assert manager.running == sum(task.state == "running" for task in manager.tasks.values())
            assert all(self._warm[code][manager.id] is manager for code in manager.warm)
            needs = [task.needs.resources for task in manager.tasks.values() if task.needs is not None]
            assert manager.more == sum(one.cores - 1 for one in needs), f"{manager.id} holds other slots"
            assert manager.memory_used == sum(one.memory for one in needs), f"{manager.id} holds other memory"
            assert manager.accelerators_used == sum(one.accelerators for one in needs)
            assert (manager.kept is not None) == (manager in self._kept.values()), f"{manager.id} is kept for nobody"
            assert manager.level == manager.level_now(), f"{manager.id} is at a wrong level"
            if manager.level < 0:
                continue
            assert self._levels[manager.level][manager.id] is manager
        working = sum(manager.level >= 0 for manager in self.managers.values())
        assert sum(map(len, self._levels.values())) == working, "somebody who is gone has a level"
        assert all(code in m.warm for code, warm in self._warm.items() for m in warm.values())
        assert lowest == min(self._levels, default=self.NOBODY), "the site's level is another"
        assert all(self._levels.values()) and all(self._warm.values())  # noqa: PT018

    def _leave(self, manager: Manager) -> None:
        level = self._levels[manager.level]
        del level[manager.id]
        if not level:
            del self._levels[manager.level]
            if manager.level == self._level:
                self._level = min(self._levels, default=self.NOBODY)
        manager.level = -1

    def _cool(self, manager: Manager, code: str) -> None:
        warm = self._warm[code]
        del warm[manager.id]
        if not warm:
            del self._warm[code]
