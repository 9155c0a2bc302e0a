"""The tasks of a manager that are at no worker, in the order in which they came. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import takewhile

from upon.dispatcher.protocol import Assignment


class Queue:
    """What waits.

    Attributes:
        tasks: in order. Who takes a task from the front here has to be sure that it needs a worker alone.
    """

    def __init__(self) -> None:
        self.tasks: deque[Assignment] = deque()
        self._promised = 0  # those that need more than a worker

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Assignment]:
        return iter(self.tasks)

    @property
    def first(self) -> Assignment:
        """The next task."""
        return self.tasks[0]

    @property
    def plain(self) -> int:
        """How many of the first tasks need a worker and nothing else."""
        if not self._promised:
            return len(self.tasks)
        return sum(1 for _ in takewhile(lambda task: task.resources is None, self.tasks))

    def add(self, task: Assignment) -> None:
        """A task came."""
        self.tasks.append(task)
        self._promised += task.resources is not None

    def put_back(self, task: Assignment) -> None:
        """A task that had been taken waits again, in front."""
        self.tasks.appendleft(task)
        self._promised += task.resources is not None

    def take(self) -> Assignment:
        """Take the next task."""
        task = self.tasks.popleft()
        self._promised -= task.resources is not None
        return task

    def take_out(self, which: Callable[[Assignment], bool]) -> list[Assignment]:
        """Take these, wherever they are."""
        taken = [task for task in self.tasks if which(task)]
        if taken:
            self.tasks = deque(task for task in self.tasks if not which(task))
            self._promised -= sum(task.resources is not None for task in taken)
        return taken
