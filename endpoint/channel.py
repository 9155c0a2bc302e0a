"""What a manager and its worker processes say to each other, and how the bytes are framed.

Three descriptors join one worker to its manager:

    stream   a socket pair; frames both ways: 4 bytes length (little endian), then a MessagePack list of messages
    tokens   a pipe; `Task.seq` in eight bytes is the permission to start that task
    output   a file without a name; the worker's stdout and stderr (`upon.endpoint.output`)

A task may be started only by who has read its token. The manager keeps the reading end too, so it can take back
whatever a worker has not begun, and the kernel decides who was first. So a worker may hold tasks in advance (fast)
and yet no task waits behind a long one, and of a dead worker's tasks exactly the begun one is lost.
A task's token is written once its frame is on its way, so who has a token reads until the task is there.
The end of either channel means the other side is gone.

Deliberately absent: heartbeats (a kernel reports the end of a local process at once) and threads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from upon.messages import Failure, ItemFailure

MAX_AHEAD = 64
"""Tasks a worker is given beyond the one it runs, at most."""
TOKEN = struct.Struct("<Q")
"""Read and written whole: a pipe keeps writes of up to 512 bytes together."""
HEADER = 4


class Task(Struct, frozen=True, array_like=True, tag="task"):
    """One assignment, as the worker needs it."""

    seq: int  # counts up from 0 in each worker
    code: str  # content hash of the function
    function: str  # its name, for messages
    payload: bytes
    items: int = 0  # 0 = one call; n = a map chunk
    cause: str = ""  # as in the assignment: what its process shall know of the rule that fired it
    id: str = ""  # of the invocation: whose a large result is
    accelerators: tuple[str, ...] | None = None  # names of its own; None: it was promised nothing
    cores: tuple[int, ...] = ()  # what it is bound to; none: nothing
    memory: int = 0  # bytes that it may take; 0: no bound


class Code(Struct, frozen=True, array_like=True, tag="code"):
    """A function's body; comes before the first task that uses it, or as the answer to `Missing`."""

    hash: str
    body: bytes
    python: str = ""  # what pickled it, such as "3.11"; empty: for any


class Up(Struct, frozen=True, array_like=True, tag="up"):
    """The worker is ready for tasks."""

    pid: int
    capped: bool = False  # the kernel holds its tasks to the memory that they were promised


class Began(Struct, frozen=True, array_like=True, tag="began"):
    """The worker has the token of this task and calls the function now."""

    seq: int
    at: int  # ns since the epoch


class Done(Struct, frozen=True, array_like=True, tag="done"):
    """How a task ended. It failed when `failure` is there; else `payload` holds the value."""

    seq: int
    started: int  # ns since the epoch
    finished: int
    payload: bytes = b""
    failure: Failure | None = None
    preview: str = ""
    stdout: str = ""
    bad_items: tuple[ItemFailure, ...] = ()


class Missing(Struct, frozen=True, array_like=True, tag="missing"):
    """The worker has dropped this function from its cache and waits for it."""

    code: str


class Retire(Struct, frozen=True, array_like=True, tag="retire"):
    """The worker's last word: its last task left what cannot be put back; another one is to take its place."""

    reason: str


ToWorker = Task | Code
FromWorker = Up | Began | Done | Missing | Retire

_encode = msgspec.msgpack.Encoder().encode
_encode_into = msgspec.msgpack.Encoder().encode_into
to_worker = msgspec.msgpack.Decoder(list[ToWorker]).decode
from_worker = msgspec.msgpack.Decoder(list[FromWorker]).decode


def frame(messages: Sequence[ToWorker] | Sequence[FromWorker]) -> bytes | bytearray:
    """Return the messages as one frame, ready to send."""
    body = _encode(messages)
    if len(body) < 65536:
        return len(body).to_bytes(HEADER, "little") + body
    buffer = bytearray(len(body).to_bytes(HEADER, "little"))
    buffer += body
    return buffer


class Frames:
    """Cuts a stream of bytes into frames.

    A frame that ends in the piece that was just fed costs one copy; a long one grows in place.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add what was received; return the bodies of the frames that are complete now, in order."""
        held = self._held
        if held:
            held += data
            view: bytes | bytearray = held
        else:
            view = data
        bodies: list[bytes] = []
        at, end = 0, len(view)
        while end - at >= HEADER:
            size = int.from_bytes(view[at : at + HEADER], "little")
            if end - at - HEADER < size:
                break
            bodies.append(bytes(memoryview(view)[at + HEADER : at + HEADER + size]))
            at += HEADER + size
        if view is held:
            del held[:at]
        elif at < end:
            held += memoryview(view)[at:]
        return bodies
