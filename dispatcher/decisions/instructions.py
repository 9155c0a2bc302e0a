"""What goes into the dispatcher's state machine, and what comes out: all of it, as data.

Inputs say what happened; instructions say what is to be done, and are carried out in their order.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from upon.dispatcher import protocol
from upon.dispatcher.decisions.past import Past
from upon.dispatcher.protocol import Attempt
from upon.messages import DeadLetter, InvocationBatch, Result, Started
from upon.printed import OutputPiece


class Now(NamedTuple):
    """The time of an input, by both clocks."""

    mono: float  # s, for deadlines: does not jump
    wall: int  # ns since the epoch, for people


# ---------------------------------------------------------------------------------------------------- inputs


class RecordRead(Struct, frozen=True):
    """A record of the invocations topic."""

    partition: int
    offset: int
    batch: InvocationBatch


class BadRecordRead(Struct, frozen=True):
    """A record of the invocations topic that is none; `letter` holds it with the reason."""

    partition: int
    offset: int
    letter: DeadLetter


class CodeKnown(Struct, frozen=True):
    """The registry has this function's code."""

    hash: str


class CodeGone(Struct, frozen=True):
    """The registry has this function's code no more: it was not used for long, and no version has it."""

    hash: str


class Heard(Struct, frozen=True):
    """A manager's message."""

    manager: str
    message: protocol.FromManager


class ManagerGone(Struct, frozen=True):
    """A manager's connection broke, or it cannot be reached."""

    manager: str
    story: str


class CancelAsked(Struct, frozen=True):
    """Somebody wants these invocations stopped; those that have begun only if `running`."""

    ids: tuple[str, ...]
    running: bool = True


class DrainAsked(Struct, frozen=True):
    """Somebody wants nothing more to be started here (or again), or these managers to end."""

    managers: tuple[str, ...] = ()
    on: bool = True


class ResultsStored(Struct, frozen=True):
    """The results of these ids are in Kafka."""

    ids: tuple[str, ...]


class IntentStored(Struct, frozen=True):
    """It is in Kafka that this attempt may begin."""

    id: str
    attempt: int


class PastRead(Struct, frozen=True):
    """What was done long ago is known now, as far back as results are read at all."""

    past: Past


class LetterStored(Struct, frozen=True):
    """The dead letter of this record is in Kafka."""

    partition: int
    offset: int


class Tick(Struct, frozen=True):
    """Time has passed: `State.deadline` is reached."""


Input = (
    RecordRead
    | BadRecordRead
    | CodeKnown
    | CodeGone
    | Heard
    | ManagerGone
    | CancelAsked
    | DrainAsked
    | ResultsStored
    | IntentStored
    | PastRead
    | LetterStored
    | Tick
)


# ---------------------------------------------------------------------------------------------- instructions


class Send(Struct, frozen=True):
    """Say this to a manager."""

    manager: str
    message: protocol.FromDispatcher


class SendCode(Struct, frozen=True):
    """Send a function's code to a manager, as soon as it is at hand."""

    manager: str
    hash: str


class PublishResult(Struct, frozen=True):
    """Write a result; answer with `ResultsStored` when Kafka has it."""

    result: Result


class PublishStarted(Struct, frozen=True):
    """Write that an invocation has begun; nobody waits for it."""

    started: Started


class PublishOutput(Struct, frozen=True):
    """Write what a task has printed so far, if there is room; nobody waits for it."""

    piece: OutputPiece


class PublishIntent(Struct, frozen=True):
    """Write that an attempt may begin; answer with `IntentStored` when Kafka has it."""

    attempt: int
    started: Started


class PublishLetter(Struct, frozen=True):
    """Write a dead letter; answer with `LetterStored` when Kafka has it."""

    letter: DeadLetter
    partition: int
    offset: int


class Commit(Struct, frozen=True):
    """Commit these offsets, the lowest that are open, by partition; and what is settled beyond them."""

    offsets: dict[int, int]


class Pause(Struct, frozen=True):
    """Read no more invocations for now: the backlog is full."""


class Resume(Struct, frozen=True):
    """Read invocations again."""


class Tell(Struct, frozen=True):
    """Log a line for people, at level info or warning."""

    level: str
    sentence: str
    action: str
    ids: dict[str, str]


Instruction = (
    Send
    | SendCode
    | PublishResult
    | PublishStarted
    | PublishOutput
    | PublishIntent
    | PublishLetter
    | Commit
    | Pause
    | Resume
    | Tell
)


class Step:
    """One turn of the machine while it is taken: the time, and the instructions so far."""

    def __init__(self) -> None:
        self.now = Now(0.0, 0)
        self.instructions: list[Instruction] = []
        self._stored: dict[str, list[Attempt]] = {}

    def begin(self, now: Now) -> None:
        """Begin a turn; what the last one said is the caller's."""
        self.now, self.instructions = now, []

    def add(self, instruction: Instruction) -> None:
        self.instructions.append(instruction)

    def send(self, manager: str, message: protocol.FromDispatcher) -> None:
        self.instructions.append(Send(manager, message))

    def stored(self, manager: str, attempt: Attempt) -> None:
        """Say to a manager, together with others of this turn, that it may forget an outcome."""
        self._stored.setdefault(manager, []).append(attempt)

    def say_stored(self) -> None:
        """Say so now: before what was settled is given out again."""
        for manager, attempts in self._stored.items():
            self.send(manager, protocol.Stored(tuple(attempts)))
        self._stored.clear()

    def tell(self, level: str, sentence: str, action: str, **ids: str) -> None:
        self.instructions.append(Tell(level, sentence, action, ids))
