"""A task: one invocation as the dispatcher follows it, and the table of what can become of it.

    arrived ──▶ needs_code ──code──▶ ready ──placed──▶ assigned ──Started──▶ running
                    │ 15 s             ▲ ▲                 │ outcome, loss       │
                    ▼                  │ └──── loss ───────┤                     │
                   done ◀── cancel ────┤                   ▼                     │
                    │                  └──backoff── retrying ◀───── failure ─────┤
                    │                                                            │
                    │◀── final outcome ──────────────────────────────────────────┘
                    ▼
    (result in Kafka) stored

What is the same as a call under way, and may have its result, is `alike` until that has ended.
What is older than what is known of the results is `unsure` first: done long ago, or to go its way.
A manager that comes back takes `unsure`, `alike`, `ready`, `retrying` and `needs_code` tasks that it still holds
straight to `assigned`.
Whatever becomes ready without its code being known goes to `needs_code` first; what is ready when its code goes from
the registry goes back there.
A cancelled task that no manager holds is done at once; one that runs is done when its manager says how it ended.

Attempts are numbered from 1 and rise with each assignment. `starts` counts those that began: only these use up
`Retry.attempts`, for a task that waited at a manager that died has done nothing wrong. `losses` bounds the others.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from upon import errors
from upon.chains import to_environment
from upon.dispatcher.decisions.memo import Key, key_of
from upon.dispatcher.decisions.needs import Needs, needs_of
from upon.dispatcher.protocol import Assignment, Outcome
from upon.events import rfc3339
from upon.messages import Failure, Invocation, InvocationBatch, Result, Retry, Started, Timings

TaskState = Literal[
    "arrived", "unsure", "alike", "needs_code", "ready", "assigned", "running", "retrying", "done", "stored"
]

TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    "arrived": frozenset({"unsure", "alike", "needs_code", "ready", "assigned", "retrying", "done"}),
    "unsure": frozenset({"alike", "needs_code", "ready", "assigned", "retrying", "done", "stored"}),
    "alike": frozenset({"needs_code", "ready", "assigned", "done"}),
    "needs_code": frozenset({"ready", "assigned", "done"}),
    "ready": frozenset({"assigned", "needs_code", "done"}),
    "assigned": frozenset({"running", "ready", "needs_code", "retrying", "done"}),
    "running": frozenset({"ready", "needs_code", "retrying", "done"}),
    "retrying": frozenset({"ready", "needs_code", "assigned", "done"}),
    "done": frozenset({"stored"}),
    "stored": frozenset(),
}
HELD: frozenset[TaskState] = frozenset({"assigned", "running"})
"""States in which a manager has the task."""
FREE: frozenset[TaskState] = frozenset({"unsure", "alike", "needs_code", "ready", "retrying"})
"""States in which a manager that says that it has the task is left at it."""
MAX_UNSTARTED_LOSSES = 10
"""How often a task may be lost before it began; more, and it is suspected of killing its managers."""


class IllegalTransition(RuntimeError):
    """A task was to go where the table does not lead: a bug in the dispatcher, told with the task's story."""


class Task(Struct, eq=False):
    """One invocation and where it stands. Times: ns since the epoch."""

    id: str
    invocation: Invocation
    group: str  # who waits for the result
    account: str  # whose share of the site it takes: see `account_of`
    submitted: int
    received: int
    positions: list[tuple[int, int]]  # (partition, offset) of every record that asked for it
    state: TaskState = "arrived"
    attempt: int = 0  # of the last assignment
    starts: int = 0  # attempts that began
    before: int = 0  # those of them under an earlier dispatcher, while it is not known whether the last one goes on
    losses: int = 0  # attempts lost before they began
    manager: str = ""  # who has it, or had it last
    recalled: int = 0  # the attempt that its manager was asked to give back
    sent: bool = True  # whether the manager was told of it: of one that may begin once, not before Kafka knows
    dispatched: int = 0
    started: int = 0
    since: float = 0.0  # monotonic s: when it began, as far as is known here
    pid: int = 0
    cancelled: bool = False
    spared: bool = False  # cancelled, but not if it turns out to have begun
    due: float = 0.0  # monotonic s: when waiting for code or for the backoff ends
    size: int = 0  # bytes held for it: payload, later its result's
    order: int = 0  # among those that wait (`waiting`)
    needs: Needs | None = None  # beside a slot
    memo: Key | None = None  # what makes calls the same, if it may have another one's result
    charged: float = 0.0  # s that its account was charged for the attempt under way
    story: list[str] = []  # one line per attempt that was lost
    told: list[tuple[str, int]] = []  # others (manager, attempt) with an outcome of it

    def is_at(self, manager: str, attempt: int) -> bool:
        """Whether this attempt, at this manager, is the one under way."""
        return self.state in HELD and self.attempt == attempt and self.manager == manager

    def go(self, to: TaskState) -> None:
        """Move on.

        Raises:
            IllegalTransition: the table does not lead there.
        """
        if to not in TRANSITIONS[self.state]:
            raise IllegalTransition(
                f"task {self.id} cannot go from {self.state} to {to} ("
                f"attempt {self.attempt} at {self.manager or 'no manager'}; {'; '.join(self.story) or 'no losses'})"
            )
        self.state = to


def new_task(invocation: Invocation, batch: InvocationBatch, position: tuple[int, int], received: int) -> Task:
    """Return the task of an invocation that was read at `position`, at the time `received`."""
    return Task(
        invocation.id,
        invocation,
        batch.group,
        batch.group or account_of(batch, invocation),
        batch.submitted,
        received,
        [position],
        size=len(invocation.payload),
        needs=needs_of(invocation) if invocation.resources is not None or invocation.limits else None,
        memo=key_of(invocation) if invocation.memoize else None,
    )


def account_of(batch: InvocationBatch, invocation: Invocation) -> str:
    """Return whose share of the site an invocation takes: a group's, that of the rule that fired, else the caller's."""
    if batch.group:
        return batch.group
    return f"rule {invocation.cause.rule}" if invocation.cause is not None else batch.principal


def retry_delay(retry: Retry, starts: int, kinds: tuple[str, ...], random: float) -> float | None:
    """Decide whether a task is tried again.

    Args:
        retry: its policy.
        starts: how many attempts have begun.
        kinds: names of the failure's class and its base classes.
        random: from 0 to 1; where in the jitter's range the wait lies.

    Returns:
        Seconds to wait, or None: it has failed for good.
    """
    if starts >= retry.attempts or not any(kind in retry.on for kind in kinds):
        return None
    try:
        wait = min(retry.initial * retry.factor ** max(0, starts - 1), retry.max)
    except OverflowError:
        wait = retry.max
    return wait * (0.5 + random / 2) if retry.jitter else wait


def failure(cls: type[errors.UponError], message: str, story: list[str] | None = None) -> Failure:
    """Return an error of the tree as it travels, without pickling anything."""
    kinds = tuple(c.__name__ for c in cls.__mro__ if c not in (object, BaseException))
    return Failure(type=cls.__name__, message=message, traceback="\n".join(story or ()), kinds=kinds)


def lost_failure(task: Task) -> Failure:
    """Return the failure of a task whose workers died as often as its policy allows: the story of each attempt."""
    name, retry, times = task.invocation.function or "the function", task.invocation.retry, task.starts + task.losses
    policy = f"at most {retry.attempts} attempts, on {', '.join(retry.on) or 'nothing'}"
    message = f"{name}: its worker was lost ({times}x; retry policy: {policy}): " + "; ".join(task.story)
    return failure(errors.WorkerLost, message, task.story)


def instant(ns: int) -> str:
    """Return a time as people and logs read it, UTC, to the millisecond."""
    return rfc3339(ns, "milliseconds")


def result_of(task: Task, outcome: Outcome, returned: int) -> Result:
    """Return the record that tells a task's outcome, which came back at `returned`."""
    invocation = task.invocation
    timings = Timings(
        submitted=task.submitted,
        received=task.received,
        dispatched=task.dispatched,
        started=task.started,
        finished=outcome.finished,
        returned=returned,
    )
    return Result(
        id=invocation.id,
        status=outcome.status,
        code=invocation.code,
        function=invocation.function,
        version=invocation.version,
        payload=outcome.payload,
        items=invocation.items,
        failure=outcome.failure,
        bad_items=outcome.bad_items,
        preview=outcome.preview,
        stdout=outcome.stdout,
        attempts=task.starts,
        worker=f"{task.manager}/{task.pid}" if task.manager and task.pid else task.manager,
        group=task.group,
        timings=timings,
        cause=invocation.cause,
    )


def start_of(task: Task, started: int, number: int = 0) -> Started:
    """Return what is said of a start; `number`: which one it is, default: the one after those that are counted."""
    worker = f"{task.manager}/{task.pid}" if task.pid else task.manager
    return Started(id=task.id, started=started, attempt=number or task.starts + 1, worker=worker, group=task.group)


def assignment_of(task: Task, timeout: float) -> Assignment:
    i = task.invocation
    cause = to_environment(i.cause)
    return Assignment(
        i.id, task.attempt, i.code, i.function, i.payload, i.items, i.timeout or timeout, cause, i.resources
    )
