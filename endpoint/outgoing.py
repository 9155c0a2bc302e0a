"""What leaves a worker for one task: values and exceptions as payloads, large ones through the store.

Guarantee: nothing here raises; what cannot be serialized, or finds no room in the store, is a `Failure` that says so.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import msgspec

from upon import serialize, spool
from upon.endpoint.channel import Task
from upon.errors import PayloadTooLarge, ResultError, StoreError
from upon.messages import MAX_PAYLOAD, Failure
from upon.store import content, payloads
from upon.store.payloads import Payloads
from upon.store.reference import RESULT

MAX_TEXT = 64 * 1024
"""Characters of a message or a traceback that travel."""


class Outgoing:
    """Makes the payloads of one task's results."""

    def __init__(self, payloads: Payloads, task: Task) -> None:
        self._payloads, self._task = payloads, task

    def value(self, value: Any) -> bytes | Failure:
        """Return a value's payload."""
        try:
            return self._payloads.dumps(value, self._task.id, RESULT)
        except BaseException as error:
            return self._refused(value, error)

    def refusal(self, value: Any) -> Failure | None:
        """Return why a value has no payload, None if it has one; makes none."""
        counted = spool.Spool(most=0)
        try:
            if serialize.packed(value) is None:
                serialize.pickle_into(counted, value)
            if counted.size > self._payloads.most:
                raise PayloadTooLarge(f"{counted.size:,} bytes serialized, the limit is {self._payloads.most:,}")
        except BaseException as error:
            return self._refused(value, error)
        return None

    def failure(self, error: BaseException, *, brief: bool = False) -> Failure:
        """Return what the function raised, as it travels; `brief`: without its traceback."""
        text = "" if brief else traceback_of(error)
        try:
            failure = dump(error, text, self._payloads.most)
        except BaseException as broken:
            name = type(error).__name__
            return Failure(type=name, message=f"<its pickling raised {type(broken).__name__}>", traceback=text)
        if not isinstance(error, Exception):
            # Rebuilt at the caller it would end the caller: SystemExit and KeyboardInterrupt go as text alone.
            message = f"the function raised {failure.type}({failure.message}), which a task must not do"
            return msgspec.structs.replace(failure, message=message, payload=b"")
        try:
            payload, unbuilt = self._payloads.led(failure.payload, self._task.id, RESULT), failure.unbuilt
        except (StoreError, PayloadTooLarge) as refused:
            payload, unbuilt = b"", f"{type(refused).__name__}: {refused}"[: serialize.MAX_REASON]
        return msgspec.structs.replace(failure, payload=payload, unbuilt=unbuilt)

    def _refused(self, value: Any, error: BaseException) -> Failure:
        if isinstance(error, PayloadTooLarge):
            return dump(PayloadTooLarge(f"the result has {error}"))
        if isinstance(error, StoreError):
            return dump(StoreError(f"the result of {self._task.function or 'the function'}: {error}"))
        try:
            return dump(serialize.unserializable(value, error), traceback_of(error))
        except BaseException:  # the error's own __str__ is broken
            return dump(ResultError(f"the result, a {type(value).__qualname__}, does not pickle"))


def dump(error: BaseException, text: str = "", most: int = MAX_PAYLOAD) -> Failure:
    """Return an error of ours, or a function's, with a message that travels and a payload of at most `most` bytes."""
    failure = serialize.dump_failure(error, text, most)
    message = _travelling(failure.message)
    if len(message) > MAX_TEXT:
        message = message[:MAX_TEXT] + "..."
    return failure if message == failure.message else msgspec.structs.replace(failure, message=message)


def _travelling(text: str) -> str:
    """Return text without lone surrogates, as names of files that are no UTF-8 have them: UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def traceback_of(error: BaseException) -> str:
    """Return the traceback's text, from the user's first frame on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in OURS:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as broken:
        text = f"{type(error).__name__} (its traceback could not be written: {type(broken).__name__})"
    text = _travelling(text)
    return text if len(text) <= MAX_TEXT else "...\n" + text[-MAX_TEXT:]


OURS = {
    *(module.__file__ for module in (serialize, spool, payloads, content, asyncio.runners, asyncio.base_events)),
    __file__,
}
"""Files whose frames a traceback does not begin with; `upon.endpoint.execution` adds its own."""
