"""What a client can do about tasks: list them, look at one, take up those of a group, cancel them, try them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from upon import api
from upon.messages import Status
from upon.sdk.connection import Connection
from upon.sdk.future import TaskFuture, id_of
from upon.sdk.rest import Rest, path
from upon.sdk.target import Finder, Target
from upon.store.payloads import Payloads

PAGE = 1_000
"""Tasks that are asked for at once: as many as the service gives."""


class Tasks:
    """A part of `upon.Client`."""

    _rest: Rest
    _find: Finder
    _payloads: Payloads

    def tasks(
        self,
        *,
        status: Status | None = None,
        rule: str | None = None,
        function: str | None = None,
        site: str | None = None,
        group: str | None = None,
        subject: str | None = None,
        since: str | None = None,
        until: str | None = None,
        after: str | None = None,
        details: bool = False,
        limit: int | None = None,
    ) -> list[api.Task]:
        """Return tasks, newest first, without their results.

        Args:
            subject: only tasks whose event has this subject.
            since, until: RFC 3339, when they were submitted.
            after: the last id of the page before.
            details: with results and output, where they are small.
            limit: how many at most, default 50.
        """
        with_details = "true" if details else None
        where = path("tasks", status=status, rule=rule, function=function, site=site, group=group, subject=subject,
                     since=since, until=until, after=after, details=with_details, limit=limit)  # fmt: skip
        return self._rest.ask("GET", where, list[api.Task])

    def futures(self, group: str) -> list[TaskFuture[Any]]:
        """Return a future for each task of a group, done or not, in the order in which they were accepted.

        For a program that goes on where another one died. Those that were accepted together, in one burst of submits,
        come in no order. The future of a map's chunk has a `Chunk` for its result, whose `items` are the values.

        Args:
            group: what `Executor(group=…)` was given, or `Executor.group` said.
        """
        found: list[api.Task] = []
        while page := self.tasks(group=group, after=found[-1].id if found else None, limit=PAGE):
            found += page
        return _futures(group, found[::-1], self._find, self._payloads)

    def task(self, id: str | TaskFuture[Any]) -> api.Task:
        """Return a task with its timings and its result, if that is plain data.

        Raises:
            TaskNotFound: no such task.
        """
        return self._rest.ask("GET", path("tasks", id_of(id)), api.Task)

    def cancel(self, id: str | TaskFuture[Any]) -> None:
        """Ask that a task does not run, or not run on; one that is done stays as it is.

        Raises:
            TaskNotFound: no such task.
        """
        self._rest.ask("POST", path("tasks", id_of(id), "cancel"), type(None))

    def retry_tasks(self, choice: api.TaskChoice) -> api.Dealt:
        """Do tasks that failed (or were cancelled) once more, each as a further generation of the same task.

        Returns:
            What is done again, what cannot be and why; `after` if there may be more: ask again with it.
        """
        return self._rest.ask("POST", path("tasks", "retry"), api.Dealt, choice)

    def cancel_tasks(self, choice: api.TaskChoice) -> api.Dealt:
        """Ask that tasks do not run, or not run on. Returns as `retry_tasks`."""
        return self._rest.ask("POST", path("tasks", "cancel"), api.Dealt, choice)


def _futures(
    group: str, tasks: Sequence[api.Task], find: Callable[[], Target], payloads: Payloads
) -> list[TaskFuture[Any]]:
    """Return futures of tasks that others submitted for a group, over a connection that ends with the last of them."""
    if not tasks:
        return []
    connection = Connection(find, payloads=payloads, group=group)
    connection.open()
    found: list[TaskFuture[Any]] = [TaskFuture(task.id, connection) for task in tasks]
    connection.want([task.id for task in tasks], found, [task.site for task in tasks])
    connection.close()
    return found
