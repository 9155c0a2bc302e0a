"""What a dispatcher (ROUTER) and its managers (DEALER) say to each other: every message, and the conversation.

    a message    [header, body]       a manager's: [id, header, body], its id in UTF-8 (`upon.dispatcher.router`)
    header       ten bytes            version, kind, epoch of the dispatcher (0: none, or not known yet)
    body         MessagePack array    the fields of the kind's struct, in their order

    manager → dispatcher                                  dispatcher → manager
    R  Ready      who I am, what I hold                   T  Tasks      run these
    U  Results    outcomes, a batch                       F  Code       functions that Tasks name
    S  Started    these have begun (slow tasks only)      C  Cancel     stop these attempts
    L  Lost       their workers died                      H  Beat       I am here; do I know you?
    N  Need       I lack this code                        A  Stored     their results are in Kafka: forget them
    g  Returned   these have not begun, and will not      G  Return     give back what of these has not begun
    h  Heartbeat  I am here                               X  Stop       finish what runs (drain) or not, then go
    B  Bye        I go, and hold nothing any more         J  Reject     I will not work with you, because …
    O  Output     what tasks have printed so far

The conversation:

    manager                                    dispatcher
    Ready ───────────────────────────────────▶ counts its slots, takes back what it holds
          ◀─────────────────── Beat(known=True)
          ◀─────────────────── Code, Tasks …   code first, once per manager and function
    Results, Started, Lost ──────────────────▶
          ◀───────────────────────────── Stored
    Heartbeat each BEAT s ───────────────────▶ silent for LOST_AFTER s, or its connection breaks: lost
          ◀──────── Beat, to each Heartbeat    known=False (the dispatcher is new, or had given the manager up):
    Ready ───────────────────────────────────▶ … the manager sends Ready again, then what was not Stored
    Ready(slots=0), Returned ────────────────▶ it drains: it gets nothing more, what had not begun goes elsewhere
    Lost, Bye ───────────────────────────────▶ what ran at its deadline was killed, through no fault of its own

Guarantees: an attempt is named by (id, attempt) everywhere, so a late word of an earlier attempt is told apart.
A manager keeps each outcome until it is Stored and sends it again after a Ready, so a dispatcher that is killed
costs no second execution; outcomes and Ready are idempotent. Everything that can be many is a batch; there is no
round trip per task. Payloads are bytes that neither side looks into. Versions: fields are only ever appended, with
a default, and readers ignore fields they do not know. A kind that must change otherwise gets the next version in
`upon.dispatcher.wire`; a message bears the version of its kind, and is read by whoever is not older. So both sides may
be upgraded one after the other, as long as neither sends a newer kind to a peer whose Ready or Beat names an older
version.

Not here: bytes (`upon.dispatcher.wire`), sockets, keys (`upon.dispatcher.keys`), decisions (`decisions.state`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from upon.messages import Failure, FunctionCode, ItemFailure, Resources, Status

VERSION = 4
"""The newest version of any kind here."""
OLDEST = 3
"""The oldest version that is still understood; what is older is rejected with the reason."""
BEAT = 1.0
"""Seconds between two heartbeats of a manager; each is answered."""
HEARD_WITHIN = 1.5
"""Seconds in which every manager that is connected has spoken: what it holds is known then."""
LOST_AFTER = 3.0
"""Seconds of silence after which a peer counts as gone."""
STARTED_AFTER = 0.05
"""Seconds: a manager reports Started for what still runs this long after it began; a shorter task's start
travels in its outcome alone."""
BATCH_BYTES = 1024 * 1024
"""Bytes after which either side begins a new message."""
MAX_OUTCOME = 32 * 1024 * 1024
"""Bytes of an outcome; a manager sends the failure that says so in place of a larger one."""


class Frame(Struct, frozen=True, array_like=True):
    """Base of all bodies: immutable, positional on the wire."""


class Attempt(NamedTuple):
    """Names one attempt of one invocation; attempts count from 1."""

    id: str
    attempt: int


# ------------------------------------------------------------------------------------- manager → dispatcher


class Ready(Frame, frozen=True):
    """A manager reports for work: at its start, and whenever a Beat says that it is not known."""

    manager: str  # its id, new at every start of the process; also the first frame of what it says
    host: str
    pid: int
    workers: tuple[int, ...]  # process ids
    slots: int  # how many tasks it runs at once; 0 = it drains: it ends what runs, and takes nothing more
    python: str  # "3.11": what unpickles the code
    warm: tuple[str, ...] = ()  # hashes of code that its workers have
    held: tuple[Attempt, ...] = ()  # attempts it has queued or runs, or whose outcomes are not Stored
    version: int = VERSION  # the newest that it understands
    memory: int = 0  # bytes, for all tasks together
    accelerators: tuple[str, ...] = ()  # their names, as tasks see them


class Outcome(Frame, frozen=True):
    """How one attempt ended, as far as the manager knows: the rest of a `Result` the dispatcher adds."""

    id: str
    attempt: int
    status: Status  # succeeded, failed or cancelled
    payload: bytes = b""  # `upon.serialize.dumps` of the value, or of a chunk's list of values
    failure: Failure | None = None
    bad_items: tuple[ItemFailure, ...] = ()
    preview: str = ""
    stdout: str = ""
    started: int = 0  # ns since the epoch
    finished: int = 0  # ns since the epoch
    pid: int = 0  # the worker's


class Results(Frame, frozen=True):
    """Outcomes, in the order in which they came about."""

    outcomes: tuple[Outcome, ...]


class Begun(Frame, frozen=True):
    """One attempt that has begun."""

    id: str
    attempt: int
    started: int  # ns since the epoch
    pid: int = 0  # the worker's
    ran: float = 0.0  # s since it began, by the manager's clock that does not jump


class Started(Frame, frozen=True):
    """Attempts that run for `STARTED_AFTER` seconds now."""

    begun: tuple[Begun, ...]


class Death(Frame, frozen=True):
    """One attempt whose worker died under it (and not because the manager killed it for timeout or cancel)."""

    id: str
    attempt: int
    story: str  # such as "worker 4711 was killed by SIGKILL (out of memory?)"
    pid: int = 0
    exitcode: int = 0  # negative: minus the signal's number, as subprocess has it
    started: int = 0  # ns since the epoch; 0 = it had not begun
    finished: int = 0  # when the death was noticed
    blame: bool = True  # False: it was killed for another task's sake or its manager's, and has used up no attempt


class Piece(Frame, frozen=True):
    """Some of what an attempt has printed; what lies between two pieces was left out."""

    id: str
    attempt: int
    start: int  # place of its first byte in all that the attempt has printed
    end: int  # place behind its last one
    text: str


class Output(Frame, frozen=True):
    """What attempts that run for a while have printed since the last such message. Nobody depends on it."""

    pieces: tuple[Piece, ...]


class Lost(Frame, frozen=True):
    """Attempts whose workers died. The dispatcher decides whether they are tried again."""

    deaths: tuple[Death, ...]


class Returned(Frame, frozen=True):
    """Attempts that have not begun, and will not: asked for by `Return`, or because the manager drains."""

    attempts: tuple[Attempt, ...]


class Need(Frame, frozen=True):
    """Code that the manager was given tasks for and does not have (any more)."""

    codes: tuple[str, ...]


class Heartbeat(Frame, frozen=True):
    """A manager's sign of life."""

    busy: int  # tasks that run
    workers: tuple[int, ...] = ()  # process ids, as they are now
    queued: int = 0  # tasks it holds that wait for a worker


class Bye(Frame, frozen=True):
    """The last word of a manager that stops cleanly: it has given back or told of all that it held."""

    reason: str = ""


# ------------------------------------------------------------------------------------- dispatcher → manager


class Call(Frame, frozen=True):
    """What many attempts have in common."""

    code: str  # hash of the function
    function: str  # its name, for people
    timeout: float = 0.0  # s; 0 = none
    resources: Resources | None = None  # None: a worker and a core


class Assignment(NamedTuple):
    """One attempt to run: a row of `Tasks`."""

    id: str
    attempt: int
    code: str  # hash of the function
    function: str  # its name, for people
    payload: bytes  # `upon.serialize.pack_call` or `pack_chunk`
    items: int = 0  # 0 = one call; n = a map chunk of n calls
    timeout: float = 0.0  # s; 0 = none
    cause: str = ""  # `upon.chains.to_environment` of the rule's cause
    resources: Resources | None = None  # None: a worker and a core


class Tasks(Frame, frozen=True):
    """Attempts to run, in this order: a column for each of their fields, a table of what they call."""

    calls: tuple[Call, ...]
    ids: tuple[str, ...]
    attempts: tuple[int, ...]
    payloads: tuple[bytes, ...]
    which: tuple[int, ...] = ()  # of the calls; empty: all are the first
    items: tuple[int, ...] = ()  # as in `Assignment`; empty: all are 0
    causes: tuple[str, ...] = ()  # the same; empty: none has one

    @classmethod
    def of(cls, assignments: Sequence[Assignment]) -> Tasks:
        """Return the message that gives these attempts, one or more, to a manager."""
        if len(assignments) == 1:  # many managers with few tasks each: the long way costs twice as much
            (first,) = assignments
            call = Call(first.code, first.function, first.timeout, first.resources)
            items, causes = (first.items,) if first.items else (), (first.cause,) if first.cause else ()
            return cls((call,), (first.id,), (first.attempt,), (first.payload,), (), items, causes)
        ids, attempts, codes, functions, payloads, items, timeouts, causes, resources = zip(*assignments, strict=True)
        calls: dict[tuple[str, str, float, Resources | None], int] = {}
        named = zip(codes, functions, timeouts, resources, strict=True)
        which = [calls.setdefault(call, len(calls)) for call in named]
        return cls(
            tuple(Call(*call) for call in calls),
            ids,
            attempts,
            payloads,
            tuple(which) if len(calls) > 1 else (),
            items if any(items) else (),
            causes if any(causes) else (),
        )

    def check(self) -> None:
        """Raise ValueError unless the columns are of one length, and name calls that are there."""
        columns = (self.attempts, self.payloads, self.which, self.items, self.causes)
        optional = (False, False, True, True, True)
        if any(len(one) != len(self.ids) and (one or not may) for one, may in zip(columns, optional, strict=True)):
            raise ValueError("its columns are not of one length")
        if self.ids and not 0 <= min(self.which, default=0) <= max(self.which, default=0) < len(self.calls):
            raise ValueError("it names a call that is not there")

    @property
    def assignments(self) -> list[Assignment]:
        """Return the attempts, row by row."""
        count = len(self.ids)
        calls = [self.calls[n] for n in self.which] if self.which else [self.calls[0]] * count
        items, causes = self.items or (0,) * count, self.causes or ("",) * count
        rows = zip(self.ids, self.attempts, calls, self.payloads, items, causes, strict=True)
        return [
            Assignment(id, attempt, call.code, call.function, payload, items, call.timeout, cause, call.resources)
            for id, attempt, call, payload, items, cause in rows
        ]


class Code(Frame, frozen=True):
    """A function's body."""

    code: FunctionCode


class Return(Frame, frozen=True):
    """Attempts to give back if they have not begun: others have nothing to do. Answered by `Returned`."""

    attempts: tuple[Attempt, ...]


class Cancel(Frame, frozen=True):
    """Attempts to stop: drop what is queued, kill what runs, answer each with a cancelled outcome."""

    attempts: tuple[Attempt, ...]
    running: bool = True  # False: those that have begun are left alone, and answered when they are done


class Beat(Frame, frozen=True):
    """The dispatcher's sign of life."""

    known: bool = True  # False: send Ready (again)
    session: str = ""  # new at every start of the dispatcher
    version: int = VERSION  # the newest that it understands


class Stored(Frame, frozen=True):
    """Attempts whose fate is settled in Kafka: the manager may forget their outcomes."""

    attempts: tuple[Attempt, ...]


class Stop(Frame, frozen=True):
    """The manager shall end."""

    drain: bool = True  # finish what runs first
    reason: str = ""


class Reject(Frame, frozen=True):
    """The dispatcher will not work with this manager, which ends and says why."""

    reason: str


FromManager = Ready | Results | Started | Output | Lost | Returned | Need | Heartbeat | Bye
FromDispatcher = Tasks | Code | Return | Cancel | Beat | Stored | Stop | Reject

FROM_MANAGER: dict[int, type[Frame]] = {
    ord("R"): Ready,
    ord("U"): Results,
    ord("S"): Started,
    ord("O"): Output,
    ord("L"): Lost,
    ord("g"): Returned,
    ord("N"): Need,
    ord("h"): Heartbeat,
    ord("B"): Bye,
}
FROM_DISPATCHER: dict[int, type[Frame]] = {
    ord("T"): Tasks,
    ord("F"): Code,
    ord("G"): Return,
    ord("C"): Cancel,
    ord("H"): Beat,
    ord("A"): Stored,
    ord("X"): Stop,
    ord("J"): Reject,
}
