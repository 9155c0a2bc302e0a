"""The frames of the WebSocket, in MessagePack: `FromClient` up, `FromService` down."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from msgspec import Struct

from upon.api.bodies import Problem, Task
from upon.errors import InputError, ServiceError
from upon.messages import FunctionCode, Invocation, Result, decode


class Frame(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag=str.lower):
    """Base of the frames. `request` numbers a client's request; the answer repeats it."""


class Register(Frame, frozen=True, kw_only=True):
    """Make code known to all sites → `Done`."""

    request: int
    code: FunctionCode


class Submit(Frame, frozen=True, kw_only=True):
    """Run invocations at a site; sent again (same ids) after a reconnect they still run once → `Done` once in Kafka."""

    request: int
    site: str
    group: str
    invocations: tuple[Invocation, ...]


class Attach(Frame, frozen=True, kw_only=True):
    """Push the results of a group from now on, and those of `unfinished` that are there already → `Done`."""

    request: int
    group: str
    unfinished: tuple[str, ...] = ()


class CancelTasks(Frame, frozen=True, kw_only=True):
    """Cancel invocations, queued or running, at a site → `Done`; the outcome arrives as their results."""

    request: int
    site: str
    ids: tuple[str, ...]
    running: bool = True  # False: those that have begun are left alone


class Watch(Frame, frozen=True, kw_only=True):
    """Push events and task changes as they happen, from now on → `Done`."""

    request: int
    events: bool = False
    tasks: bool = False


class Done(Frame, frozen=True, kw_only=True):
    request: int


class Refused(Frame, frozen=True, kw_only=True):
    """The request failed; nothing of it took place."""

    request: int
    problem: Problem


class Results(Frame, frozen=True, kw_only=True):
    """Outcomes of invocations, and the ids of those that have begun and are not done (of those that take a while)."""

    results: tuple[Result, ...]
    started: tuple[str, ...] = ()


class ResultsAsTheyStand(Frame, frozen=True, kw_only=True, tag="results"):
    """`Results` as the service sends them: each as its site has encoded it. Nothing but its client decodes it."""

    results: msgspec.Raw
    started: tuple[str, ...] = ()


class EventSeen(Frame, frozen=True, kw_only=True):
    """An event passed (a watcher that is too slow misses some: `missed` says how many since the last)."""

    event: dict[str, Any]  # JSON event format
    missed: int = 0


class TaskChanged(Frame, frozen=True, kw_only=True):
    """A task was submitted, started (if it takes a while) or ended."""

    task: Task
    missed: int = 0


FromClient = Register | Submit | Attach | CancelTasks | Watch
FromService = Done | Refused | Results | EventSeen | TaskChanged

encode_frame = msgspec.msgpack.Encoder().encode
_from_client = msgspec.msgpack.Decoder(FromClient)
_from_service = msgspec.msgpack.Decoder(FromService)
_as_they_stand = msgspec.msgpack.Decoder(ResultsAsTheyStand)
_each = msgspec.msgpack.Decoder(list[msgspec.Raw])


def decode_from_client(data: bytes) -> FromClient:
    """Read a client's frame. Raises InputError if it is none."""
    try:
        frame: FromClient = _from_client.decode(data)
    except Exception as error:  # whatever the bytes: deep nesting is a RecursionError, a claimed length a MemoryError
        raise InputError(f"not a frame of this API: {error or type(error).__name__}") from error
    return frame


def decode_from_service(data: bytes) -> FromService:
    """Read the service's frame; of results those that are none are left out: the service has buried them.

    Raises:
        ServiceError: it is no frame (service and client of different versions).
    """
    try:
        frame: FromService = _from_service.decode(data)
    except Exception as error:
        if (readable := _readable(data)) is not None:
            return readable
        raise ServiceError(f"the service sent an unknown frame ({error}); are both of one version?") from error
    return frame


def _readable(data: bytes) -> Results | None:
    """Return the results in a frame that can be read; None: it has none."""
    try:
        frame = _as_they_stand.decode(data)
        found = []
        for one in _each.decode(frame.results):
            with contextlib.suppress(InputError):
                found.append(decode(one, Result))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return Results(results=tuple(found), started=frame.started)
