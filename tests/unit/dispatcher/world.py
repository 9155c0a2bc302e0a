"""Makes the inputs of the dispatcher's state machine, and a machine whose every step is checked."""

from __future__ import annotations

from typing import Any, TypeVar

from upon.dispatcher import protocol
from upon.dispatcher.decisions.instructions import (
    CodeKnown,
    Heard,
    Input,
    Instruction,
    Now,
    PublishResult,
    RecordRead,
    ResultsStored,
    Send,
    Tick,
)
from upon.dispatcher.decisions.past import Past
from upon.dispatcher.decisions.state import State
from upon.dispatcher.decisions.waiting import Depths
from upon.dispatcher.protocol import Outcome, Ready, Results
from upon.messages import Failure, Invocation, InvocationBatch, Result, Retry

Kind = TypeVar("Kind")
AT_ONCE = Retry(jitter=False)
VALUE_ERROR = Failure(type="ValueError", message="bad", kinds=("ValueError", "Exception"))


def invocation(id: str, **more: Any) -> Invocation:
    return Invocation(id=id, **{"code": "c0", "function": "f", "payload": b"mxx", "retry": AT_ONCE, **more})


def record(offset: int, *items: str | Invocation, partition: int = 0) -> RecordRead:
    invocations = tuple(invocation(item) if isinstance(item, str) else item for item in items)
    return RecordRead(partition, offset, InvocationBatch(site="s", group="g", submitted=5, invocations=invocations))


def ready(id: str = "m1", slots: int = 1, **more: Any) -> Heard:
    return Heard(id, Ready(id, "h", 1, (2,), slots, "3.11", **more))


def ended(id: str, attempt: int = 1, status: Any = "succeeded", manager: str = "m1", **more: Any) -> Heard:
    return Heard(manager, Results((Outcome(id, attempt, status, **more),)))


def died(id: str, attempt: int = 1, manager: str = "m1", started: int = 7, story: str = "worker 4 was killed") -> Heard:
    return Heard(manager, protocol.Lost((protocol.Death(id, attempt, story, 4, -9, started, 8),)))


def sends(said: list[Instruction], kind: type[Kind]) -> list[Kind]:
    return [one.message for one in said if isinstance(one, Send) and isinstance(one.message, kind)]


class Machine:
    """A State with a clock of its own; checks the invariants after every step.

    Attributes:
        said: the instructions of the last step.
        results: every result published, by id, in order.
    """

    def __init__(self, *, code: bool = True, past: Past | None = None, **more: Any) -> None:
        self.mono = 100.0
        self.state = State(past=past, session="t", random=lambda: 1.0, **{"depths": Depths(horizon=0), **more})
        self.said: list[Instruction] = []
        self.results: dict[str, list[Result]] = {}
        if code:
            self.do(CodeKnown("c0"))

    def do(self, *inputs: Input) -> list[Instruction]:
        said: list[Instruction] = []
        for event in inputs:
            said += self.state.handle([event], self.now())
            self.state.check_invariants()
        for published in (i for i in said if isinstance(i, PublishResult)):
            self.results.setdefault(published.result.id, []).append(published.result)
        self.said = said
        return said

    def now(self) -> Now:
        return Now(self.mono, int(self.mono * 1e9))

    def wait(self, seconds: float) -> list[Instruction]:
        self.mono += seconds
        return self.do(Tick())

    def store(self, *ids: str) -> list[Instruction]:
        return self.do(ResultsStored(ids))

    def only(self, kind: type[Kind]) -> list[Kind]:
        return [i for i in self.said if isinstance(i, kind)]

    def sent(self, kind: type[Kind], manager: str = "m1") -> list[Kind]:
        return [s.message for s in self.only(Send) if s.manager == manager and isinstance(s.message, kind)]

    def assigned(self, manager: str = "m1") -> list[tuple[str, int]]:
        return [(a.id, a.attempt) for tasks in self.sent(protocol.Tasks, manager) for a in tasks.assignments]

    def result(self, id: str) -> Result:
        (result,) = self.results[id]
        return result
