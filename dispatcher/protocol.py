"""What travels between a dispatcher (ROUTER) and its managers (DEALER): every wire frame, and nothing else.

    a message    [header, body]       a manager's: [id, header, body], its id in UTF-8 (`upon.dispatcher.router`)
    header       two bytes            protocol version, kind
    body         MessagePack array    the fields of the kind's struct, in their order

    manager → dispatcher                                  dispatcher → manager
    R  Ready      who I am, what I hold                   T  Tasks      run these
    U  Results    outcomes, a batch                       F  Code       functions that Tasks name
    S  Started    these have begun (slow tasks only)      C  Cancel     stop these attempts
    L  Lost       their workers died                      H  Beat       I am here; do I know you?
    N  Need       I lack this code                        A  Stored     their results are in Kafka: forget them
    h  Heartbeat  I am here                               X  Stop       finish what runs (drain) or not, then go
    B  Bye        I go; what I hold is to be queued again J  Reject     I will not work with you, because …

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

Guarantees: an attempt is named by (id, attempt) everywhere, so a late word of an earlier attempt is told apart.
A manager keeps each outcome until it is Stored and sends it again after a Ready, so a dispatcher that is killed
costs no second execution; outcomes and Ready are idempotent. Everything that can be many is a batch; there is no
round trip per task. Payloads are bytes that neither side looks into. Fields are only ever appended, with a
default, and readers ignore fields they do not know; what breaks that raises VERSION.

Not here: sockets, keys (`upon.dispatcher.keys`), what is decided (`upon.dispatcher.state`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from upon.errors import InputError
from upon.messages import Failure, FunctionCode, ItemFailure, Status

VERSION = 1
"""Raised when an older peer would misunderstand; the dispatcher rejects any other version with the reason."""
BEAT = 1.0
"""Seconds between two heartbeats of a manager; each is answered."""
LOST_AFTER = 3.0
"""Seconds of silence after which a peer counts as gone."""
STARTED_AFTER = 0.05
"""Seconds: a manager reports Started for what still runs this long after it began; a shorter task's start
travels in its outcome alone."""
BATCH_BYTES = 1024 * 1024
"""Bytes after which either side begins a new message."""
MAX_OUTCOME = 32 * 1024 * 1024
"""Bytes of an outcome; a manager sends the failure that says so in place of a larger one."""
_FIELDS = 200
"""Bytes of what has no variable length in an outcome or an assignment, generously."""


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
    slots: int  # how many tasks it runs at once
    python: str  # "3.11": what unpickles the code
    warm: tuple[str, ...] = ()  # hashes of code that its workers have
    held: tuple[Attempt, ...] = ()  # attempts it has queued or runs, or whose outcomes are not Stored


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


class Lost(Frame, frozen=True):
    """Attempts whose workers died. The dispatcher decides whether they are tried again."""

    deaths: tuple[Death, ...]


class Need(Frame, frozen=True):
    """Code that the manager was given tasks for and does not have (any more)."""

    codes: tuple[str, ...]


class Heartbeat(Frame, frozen=True):
    """A manager's sign of life."""

    busy: int  # tasks that run
    workers: tuple[int, ...] = ()  # process ids, as they are now
    queued: int = 0  # tasks it holds that wait for a worker


class Bye(Frame, frozen=True):
    """The last word of a manager that stops cleanly; what it holds has not been done."""

    reason: str = ""


# ------------------------------------------------------------------------------------- dispatcher → manager


class Assignment(Frame, frozen=True):
    """One attempt to run."""

    id: str
    attempt: int
    code: str  # hash of the function
    function: str  # its name, for people
    payload: bytes  # `upon.serialize.pack_call` or `pack_chunk`
    items: int = 0  # 0 = one call; n = a map chunk of n calls
    timeout: float = 0.0  # s; 0 = none
    cause: str = ""  # `upon.chains.to_environment` of the rule's cause


class Tasks(Frame, frozen=True):
    """Attempts to run, in this order."""

    assignments: tuple[Assignment, ...]


class Code(Frame, frozen=True):
    """A function's body."""

    code: FunctionCode


class Cancel(Frame, frozen=True):
    """Attempts to stop: drop what is queued, kill what runs, answer each with a cancelled outcome."""

    attempts: tuple[Attempt, ...]
    running: bool = True  # False: those that have begun are left alone, and answered when they are done


class Beat(Frame, frozen=True):
    """The dispatcher's sign of life."""

    known: bool = True  # False: send Ready (again)
    session: str = ""  # new at every start of the dispatcher


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


FromManager = Ready | Results | Started | Lost | Need | Heartbeat | Bye
FromDispatcher = Tasks | Code | Cancel | Beat | Stored | Stop | Reject

_FROM_MANAGER: dict[int, type[Frame]] = {
    ord("R"): Ready,
    ord("U"): Results,
    ord("S"): Started,
    ord("L"): Lost,
    ord("N"): Need,
    ord("h"): Heartbeat,
    ord("B"): Bye,
}
_FROM_DISPATCHER: dict[int, type[Frame]] = {
    ord("T"): Tasks,
    ord("F"): Code,
    ord("C"): Cancel,
    ord("H"): Beat,
    ord("A"): Stored,
    ord("X"): Stop,
    ord("J"): Reject,
}
KINDS = {**_FROM_MANAGER, **_FROM_DISPATCHER}

_encode = msgspec.msgpack.Encoder().encode
_headers = {cls: bytes((VERSION, kind)) for kind, cls in KINDS.items()}
_decoders: dict[int, msgspec.msgpack.Decoder[Any]] = {kind: msgspec.msgpack.Decoder(cls) for kind, cls in KINDS.items()}


def assignment_bytes(one: Assignment) -> int:
    """Return how many bytes an assignment takes in a message, at most."""
    return len(one.payload) + _text(one.function) + _text(one.cause) + _text(one.code) + _FIELDS


def outcome_bytes(one: Outcome) -> int:
    """Return how many bytes an outcome takes in a message, at most."""
    size = len(one.payload) + _text(one.stdout) + _text(one.preview) + _FIELDS
    if one.failure is not None:
        size += _failure_bytes(one.failure)
    return size + sum(_failure_bytes(item.failure) for item in one.bad_items) if one.bad_items else size


def _failure_bytes(one: Failure) -> int:
    texts = (one.type, one.message, one.traceback, one.unbuilt, *one.kinds)
    return len(one.payload) + sum(map(_text, texts)) + _FIELDS


def _text(text: str) -> int:
    return len(text) if text.isascii() else len(text) * 4


class ProtocolError(InputError):
    """A message that is none of this protocol, or of another version of it."""


def pack(message: FromManager | FromDispatcher) -> list[bytes]:
    """Return the frames of a message: header and body."""
    return [_headers[type(message)], _encode(message)]


def from_manager(frames: Sequence[bytes]) -> FromManager:
    """Read what a manager sent (without its id, and the number that the ROUTER put in front).

    Raises:
        ProtocolError: it is of another version, of no kind known here, or damaged.
    """
    return _unpack(frames, _FROM_MANAGER)  # type: ignore[return-value]


def from_dispatcher(frames: Sequence[bytes]) -> FromDispatcher:
    """Read what the dispatcher sent. Reject is read whatever its version.

    Raises:
        ProtocolError: as for `from_manager`.
    """
    return _unpack(frames, _FROM_DISPATCHER)  # type: ignore[return-value]


def _unpack(frames: Sequence[bytes], kinds: dict[int, type[Frame]]) -> Frame:
    if len(frames) != 2 or len(frames[0]) != 2:
        raise ProtocolError(f"{len(frames)} frames, not a two-byte header and a body")
    version, kind = frames[0]
    if kind not in kinds:
        raise ProtocolError(f"message of unknown kind {bytes((kind,))!r}")
    if version != VERSION and kinds[kind] is not Reject:
        raise ProtocolError(f"protocol version {version}; this side speaks version {VERSION}: upgrade the older one")
    try:
        body: Frame = _decoders[kind].decode(frames[1])
    except Exception as error:  # whatever the bytes
        raise ProtocolError(f"damaged {kinds[kind].__name__}: {error}") from error
    return body
