"""What a connection owes: what is queued, what the service has not acknowledged, what has no result yet.

    submit ─▶ held (until its code is registered) ─▶ queued ─▶ unacknowledged ─▶ unfinished ─▶ result
                        │                              │              │              │
                        └── cancel: never sent ────────┘        refused: fails    cancel: CancelTasks
                            (spare alike, but who has been sent waits on for what the site says)

Pure: frames go out and come in as values; the loops in `connection` move them. Not safe for several threads.
At most `WINDOW` Submits are under way.
Guarantees: after a lost connection `again` gives every frame that the service may not have, in the old order and
with the same ids, so nothing is lost and nothing runs twice; each invocation leaves in exactly one way: a result,
a refusal, a cancellation or `abandon`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from upon.api import Attach, CancelTasks, FromClient, Problem, Register, Submit, Watch
from upon.ids import task_of
from upon.messages import COALESCE_BYTES, FunctionCode, Invocation, Result

W = TypeVar("W")
"""Whoever waits for a result; opaque here."""

OVERHEAD = 256
"""Bytes: about what an invocation takes on the wire beside its payload."""
MAX_INVOCATIONS = 2000
"""The most invocations of one Submit: the service works on the first while we pack the next."""
WINDOW = 2
"""Submits under way at once. What comes meanwhile shares the next one: at the service it would wait for Kafka's answer
to what came before all the same, and frames of a few invocations each cost both sides more than what is in them."""
MAX_IDS = 20_000
"""The most ids of one Attach or CancelTasks (0.8 MB)."""
RENEW = 3600.0
"""Seconds after which code is registered again before it is used: the service drops what is not used for days."""
TRY_AGAIN = frozenset({"KafkaUnavailable", "ServiceUnavailable"})
"""Refusals that pass by themselves: the frame is sent again later."""


def size(invocation: Invocation) -> int:
    """Return the bytes that an invocation takes on the wire, about."""
    return len(invocation.payload) + OVERHEAD


@dataclass(frozen=True, slots=True)
class Refusal(Generic[W]):
    """What a refused request means.

    Attributes:
        frame: what was refused, None if it is not known any more.
        waiters: who fails by it.
        passes: the reason passes by itself; nobody fails, and `retry` sends it again.
    """

    frame: FromClient | None = None
    waiters: tuple[W, ...] = ()
    passes: bool = False


@dataclass(slots=True)
class Ledger(Generic[W]):
    """The state of one connection, over all its WebSockets.

    Args:
        group: under which the service knows who waits; empty if nobody submits here.
        site: where invocations go.
        watch: what to have pushed beside results, asked again at each connection; its `request` is not used.
        now: gives monotonic seconds.
    """

    group: str = ""
    site: str = "local"
    watch: Watch | None = None
    now: Callable[[], float] = time.monotonic
    freed: int = 0  # bytes that the service has taken over, or that nobody needs any more, since the beginning
    unfinished: dict[str, W] = field(default_factory=dict)  # by invocation id
    _elsewhere: dict[str, str] = field(default_factory=dict)  # id → site, of what was submitted in another way
    _requests: int = 0
    _registered: dict[str, float] = field(default_factory=dict)  # code hash → when, monotonic s
    _held: dict[str, list[Invocation]] = field(default_factory=dict)  # by code hash
    _queue: deque[Invocation] = field(default_factory=deque)
    _frames: deque[FromClient] = field(default_factory=deque)  # to be sent before the queue
    _unacknowledged: dict[int, FromClient] = field(default_factory=dict)
    _submits_under_way: int = 0  # of those
    _later: list[FromClient] = field(default_factory=list)  # refused for a reason that passes

    # ── what the user asks ────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, invocation: Invocation, code: FunctionCode | None, waiter: W) -> None:
        """Take in an invocation; its code is registered first if this connection has not done so.

        Without code it names a registered function, which the service looks up.
        """
        self.unfinished[invocation.id] = waiter
        if code is None or self.now() - self._registered.get(code.hash, -RENEW) < RENEW:
            self._queue.append(invocation)
        elif code.hash in self._held:
            self._held[code.hash].append(invocation)
        else:
            self._held[code.hash] = [invocation]
            self._frames.append(Register(request=self._next(), code=code))

    def expect(self, task: str, site: str, waiter: W) -> None:
        """Somebody waits for a task that is submitted in another way, for this group."""
        self.unfinished[task] = waiter
        self._elsewhere[task] = site

    def cancel(self, ids: Iterable[str]) -> None:
        """Forget the waiters of these ids; what the service has already shall not run on."""
        wanted = {one for one in ids if self.unfinished.pop(one, None) is not None}
        unsent = self._drop(wanted)
        by_site: dict[str, list[str]] = {}
        for one in sorted(wanted - unsent):
            by_site.setdefault(self._elsewhere.pop(one, self.site), []).append(one)
        for site, asked in by_site.items():
            for some in _runs(asked, MAX_IDS):
                self._frames.append(CancelTasks(request=self._next(), site=site, ids=some))

    def spare(self, ids: Iterable[str]) -> list[W]:
        """Cancel what has not begun; return who waits for what was not even sent. The others wait for their results."""
        wanted = {one for one in ids if one in self.unfinished}
        unsent = self._drop(wanted)
        for some in _runs(sorted(wanted - unsent), MAX_IDS):
            self._frames.append(CancelTasks(request=self._next(), site=self.site, ids=some, running=False))
        return [self.unfinished.pop(one) for one in sorted(unsent)]

    def forget(self, task: str) -> None:
        """Nobody waits for this task here any more; it runs on."""
        self.unfinished.pop(task, None)
        self._elsewhere.pop(task, None)

    def want(self, ids: Sequence[str], waiters: Sequence[W], sites: Sequence[str] = ()) -> None:
        """Ask for the results of invocations that others submitted: of those that are done, and of this group's all."""
        self.unfinished.update(zip(ids, waiters, strict=True))
        self._elsewhere.update(zip(ids, sites, strict=False))
        self._attach(ids)

    # ── what goes out ─────────────────────────────────────────────────────────────────────────────────────────────

    def next_frame(self) -> FromClient | None:
        """Return what to send next, None if there is nothing now. It stays here until it is acknowledged."""
        if self._frames:
            frame = self._frames.popleft()
        elif self._queue and not self.is_full:
            frame = Submit(request=self._next(), site=self.site, group=self.group, invocations=self._take())
        else:
            return None
        self._unacknowledged[frame.request] = frame
        self._submits_under_way += isinstance(frame, Submit)
        return frame

    def _take(self) -> tuple[Invocation, ...]:
        queue, taken, total = self._queue, list[Invocation](), 0
        named = _named(queue[0])  # alone in its Submit, that a refusal of a name is nobody else's
        while queue and len(taken) < MAX_INVOCATIONS and _named(queue[0]) == named:
            total += size(queue[0])
            if total > COALESCE_BYTES and taken:
                break
            taken.append(queue.popleft())
        return tuple(taken)

    def again(self) -> None:
        """Start over on a new connection: attach, then send all that was not acknowledged.

        Code is registered again before it is next used: what answers now may be another system.
        """
        self._registered.clear()
        frames = (*self._later, *self._unacknowledged.values(), *self._frames)
        self._later.clear()
        self._unacknowledged.clear()
        self._submits_under_way = 0
        self._frames.clear()
        if self.group:
            unsent = {one.id for one in self._unsent()}
            self._attach([one for one in self.unfinished if one not in unsent])
        if self.watch is not None:
            self._frames.append(Watch(request=self._next(), events=self.watch.events, tasks=self.watch.tasks))
        self._frames.extend(frame for frame in frames if not isinstance(frame, Attach | Watch))

    def _attach(self, ids: Sequence[str]) -> None:
        for some in _runs(ids, MAX_IDS) or [()]:
            self._frames.append(Attach(request=self._next(), group=self.group, unfinished=some))

    # ── what comes in ─────────────────────────────────────────────────────────────────────────────────────────────

    def done(self, request: int) -> FromClient | None:
        """Take in an acknowledgement; return what is acknowledged, None if it was before."""
        frame = self._answered(request)
        match frame:
            case Submit():
                self.freed += sum(map(size, frame.invocations))
            case Register():
                self._registered[frame.code.hash] = self.now()
                self._queue.extend(self._held.pop(frame.code.hash, ()))
        return frame

    def refused(self, request: int, problem: Problem) -> Refusal[W]:
        """Take in a refusal.

        Either its reason passes and `retry` will send the frame again; or it is about one of several invocations, which
        are sent again one by one, so that nobody fails for another; or its waiters fail.
        """
        frame = self._answered(request)
        if frame is None:
            return Refusal()
        if problem.error in TRY_AGAIN:
            self._later.append(frame)
            return Refusal(frame=frame, passes=True)
        lost: Iterable[Invocation] = ()
        match frame:
            case Submit() if len(frame.invocations) > 1:
                self._frames.extendleft(
                    Submit(request=self._next(), site=frame.site, group=frame.group, invocations=(one,))
                    for one in reversed(frame.invocations)
                )
                return Refusal(frame=frame)
            case Submit():
                lost = frame.invocations
                for one in lost:  # it may be refused because its code is not known any more: register it again
                    self._registered.pop(one.code, None)
            case Register():
                lost = self._held.pop(frame.code.hash, ())
        self.freed += sum(map(size, lost))
        found = (self.unfinished.pop(one.id, None) for one in lost)
        return Refusal(frame=frame, waiters=tuple(waiter for waiter in found if waiter is not None))

    def retry(self) -> None:
        """Send again, before all else, what was refused for a reason that passes."""
        self._frames.extendleft(reversed(self._later))
        self._later.clear()

    def results(self, results: Iterable[Result]) -> list[tuple[W, Result]]:
        """Take in results; return those that somebody waits for, each once."""
        found = []
        for result in results:
            task, _ = task_of(result.id)  # that of a further generation is the task's
            waiter = self.unfinished.pop(task, None)
            self._elsewhere.pop(task, None)
            if waiter is not None:
                found.append((waiter, result))
        return found

    def begun(self, ids: Iterable[str]) -> list[W]:
        """Return who waits for these."""
        return [self.unfinished[one] for one in ids if one in self.unfinished]

    def abandon(self) -> list[W]:
        """Give everything up; return who waits in vain."""
        waiters = list(self.unfinished.values())
        self.unfinished.clear()
        self._elsewhere.clear()
        self.freed += sum(map(size, self._unsent()))
        self.freed += sum(sum(map(size, f.invocations)) for f in self._submits())
        self._held.clear()
        self._queue.clear()
        self._frames.clear()
        self._unacknowledged.clear()
        self._submits_under_way = 0
        self._later.clear()
        return waiters

    def _answered(self, request: int) -> FromClient | None:
        frame = self._unacknowledged.pop(request, None)
        self._submits_under_way -= isinstance(frame, Submit)
        return frame

    # ── what there is ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_full(self) -> bool:
        """Whether no further Submit leaves before one that is under way is answered."""
        return self._submits_under_way >= WINDOW

    @property
    def is_accepted(self) -> bool:
        """Whether the service has acknowledged all that was asked of it."""
        under_way = (*self._frames, *self._unacknowledged.values(), *self._later)
        return not (self._held or self._queue or any(not isinstance(frame, Attach | Watch) for frame in under_way))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way and nobody waits."""
        return self.is_accepted and not self.unfinished

    def _submits(self) -> list[Submit]:
        return [f for f in (*self._unacknowledged.values(), *self._frames, *self._later) if isinstance(f, Submit)]

    def _unsent(self) -> list[Invocation]:
        return [*self._queue, *(one for held in self._held.values() for one in held)]

    def _drop(self, ids: set[str]) -> set[str]:
        """Drop those of them that were not sent; return which."""
        unsent = [one for one in self._unsent() if one.id in ids]
        if unsent:
            self.freed += sum(map(size, unsent))
            self._queue = deque(one for one in self._queue if one.id not in ids)
            for code, held in self._held.items():
                self._held[code] = [one for one in held if one.id not in ids]
        return {one.id for one in unsent}

    def _next(self) -> int:
        self._requests += 1
        return self._requests


def _named(invocation: Invocation) -> str:
    """Return the name by which the service finds the function; empty if the invocation has its code."""
    return "" if invocation.code else invocation.function


def _runs(ids: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(ids[start : start + length]) for start in range(0, len(ids), length)]
