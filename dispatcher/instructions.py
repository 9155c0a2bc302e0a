"""What goes into the dispatcher's state machine, and what comes out: all of it, as data.

Inputs say what happened; instructions say what is to be done, and are carried out in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from upon.dispatcher import protocol
from upon.messages import DeadLetter, InvocationBatch, Result, Started


class Now(NamedTuple):
    """The time of an input, by both clocks."""

    mono: float  # s, for deadlines: does not jump
    wall: int  # ns since the epoch, for people


# ---------------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True, slots=True)
class RecordRead:
    """A record of the invocations topic."""

    partition: int
    offset: int
    batch: InvocationBatch


@dataclass(frozen=True, slots=True)
class BadRecordRead:
    """A record of the invocations topic that is none; `letter` holds it with the reason."""

    partition: int
    offset: int
    letter: DeadLetter


@dataclass(frozen=True, slots=True)
class CodeKnown:
    """The registry has this function's code."""

    hash: str


@dataclass(frozen=True, slots=True)
class CodeGone:
    """The registry has this function's code no more: it was not used for long, and no version has it."""

    hash: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A manager's message."""

    manager: str
    message: protocol.FromManager


@dataclass(frozen=True, slots=True)
class ManagerGone:
    """A manager's connection broke, or it cannot be reached."""

    manager: str
    story: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody wants these invocations stopped; those that have begun only if `running`."""

    ids: tuple[str, ...]
    running: bool = True


@dataclass(frozen=True, slots=True)
class ResultsStored:
    """The results of these ids are in Kafka."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LetterStored:
    """The dead letter of this record is in Kafka."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `State.deadline` is reached."""


Input = (
    RecordRead
    | BadRecordRead
    | CodeKnown
    | CodeGone
    | Heard
    | ManagerGone
    | CancelAsked
    | ResultsStored
    | LetterStored
    | Tick
)


# ---------------------------------------------------------------------------------------------- instructions


@dataclass(frozen=True, slots=True)
class Send:
    """Say this to a manager."""

    manager: str
    message: protocol.FromDispatcher


@dataclass(frozen=True, slots=True)
class SendCode:
    """Send a function's code to a manager, as soon as it is at hand."""

    manager: str
    hash: str


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Write a result; answer with `ResultsStored` when Kafka has it."""

    result: Result


@dataclass(frozen=True, slots=True)
class PublishStarted:
    """Write that an invocation has begun; nobody waits for it."""

    group: str
    started: Started


@dataclass(frozen=True, slots=True)
class PublishLetter:
    """Write a dead letter; answer with `LetterStored` when Kafka has it."""

    letter: DeadLetter
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit these offsets: the next to read, by partition."""

    offsets: dict[int, int]


@dataclass(frozen=True, slots=True)
class Pause:
    """Read no more invocations for now: the backlog is full."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Read invocations again."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Log a line for people, at level info or warning."""

    level: str
    sentence: str
    action: str
    ids: dict[str, str]


Instruction = Send | SendCode | PublishResult | PublishStarted | PublishLetter | Commit | Pause | Resume | Tell


class Step:
    """One step of the machine while it is taken: the time, and the instructions so far."""

    def __init__(self) -> None:
        self.now = Now(0.0, 0)
        self.instructions: list[Instruction] = []

    def begin(self, now: Now) -> None:
        """Begin a step; what the last one said is the caller's."""
        self.now, self.instructions = now, []

    def add(self, instruction: Instruction) -> None:
        self.instructions.append(instruction)

    def send(self, manager: str, message: protocol.FromDispatcher) -> None:
        self.instructions.append(Send(manager, message))

    def tell(self, level: str, sentence: str, action: str, **ids: str) -> None:
        self.instructions.append(Tell(level, sentence, action, ids))
