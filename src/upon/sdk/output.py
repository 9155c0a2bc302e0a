"""What a client can see of what tasks print."""

from __future__ import annotations

from collections.abc import Iterator

from upon import api
from upon.messages import FINAL
from upon.sdk.future import TaskFuture, id_of
from upon.sdk.rest import Rest, path

WAIT = 10
"""Seconds that one request of a follower waits for something new."""


class Output:
    """A part of `upon.Client`: the output of tasks, also of those that run."""

    _rest: Rest

    def output(
        self, id: str | TaskFuture[object], *, attempt: int = 0, since: int = 0, wait: int = 0
    ) -> api.TaskOutput:
        """Return what a task has printed, so far or in the end.

        Args:
            attempt, since: only what comes behind this place of this attempt: `attempt` and `end` of an answer before.
            wait: s to wait for something new, or the task's end, at most 20; default: not at all.

        Raises:
            TaskNotFound: no such task.
        """
        where = path("tasks", id_of(id), "output", attempt=attempt, since=since, wait=wait)
        return self._rest.ask("GET", where, api.TaskOutput)

    def follow_output(self, id: str | TaskFuture[object]) -> Iterator[str]:
        """Yield what a task prints, as it comes, until it has ended. Where an attempt begins anew, a line says so.

        for text in client.follow_output(future):
            print(text, end="")

        Raises:
            TaskNotFound: no such task.
        """
        attempt = since = 0
        while True:
            found = self.output(id, attempt=attempt, since=since, wait=WAIT)
            if found.text:
                yield f"… another attempt\n{found.text}" if since and found.attempt != attempt else found.text
            if found.status in FINAL:
                return
            attempt, since = found.attempt, found.end
