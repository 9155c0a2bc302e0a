"""Run one task: load the function, call it, turn whatever happens into a `Done`.

Guarantees: nothing a function does with exceptions gets out of here, `SystemExit` and `KeyboardInterrupt` included;
an item of a map chunk is called exactly once and fails alone; what is returned is small enough to travel. A
coroutine (of an `async def` function) is run to its end, in an event loop of its own for each call, or each chunk.
Deliberately absent: timeouts and cancelling (the manager kills the process), input and output (the worker's loop),
how values and exceptions become payloads (`upon.endpoint.outgoing`).
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic_ns
from types import CoroutineType
from typing import Any

import msgspec

from upon import serialize
from upon.chains import enter
from upon.endpoint.channel import Code, Done, Task
from upon.endpoint.outgoing import OURS, Outgoing, dump, traceback_of
from upon.endpoint.preview import preview
from upon.errors import FunctionLoadError, PayloadTooLarge, StoreError
from upon.messages import MAX_PAYLOAD, Failure, ItemFailure
from upon.serialize import text_of
from upon.source_text import Lines, Shown, blocks_of, lines_of, pickle_of
from upon.store.payloads import Payloads
from upon.store.reference import size_of

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
FUNCTIONS = 256
"""Loaded functions a worker keeps; the one not used for the longest time goes first."""
FUNCTION_BYTES = 128 * 1024 * 1024
"""Bytes of their bodies; past it the same one goes first, and its body is asked for again when it is needed."""
FULL_FAILURES = 100
"""Bad items of one chunk whose traceback travels; further ones carry the exception alone."""

Function = Callable[..., Any]


class Functions:
    """The functions a worker has loaded, by content hash, at most `FUNCTIONS` of them."""

    def __init__(self, limit: int = FUNCTIONS) -> None:
        self._limit = limit
        self._loaded: OrderedDict[str, Function | Failure] = OrderedDict()
        self._bodies: dict[str, Code] = {}
        self._lines: dict[str, Lines] = {}
        self._sizes: dict[str, int] = {}
        self._shown = Shown()

    def add(self, code: Code) -> None:
        """Take a function's body; it is loaded when it is first needed."""
        self._bodies[code.hash] = code

    def __contains__(self, code: str) -> bool:
        return code in self._loaded or code in self._bodies

    def get(self, code: str, name: str) -> Function | Failure:
        """Return the function, or the failure to load it. From now on tracebacks show its source text.

        Raises:
            KeyError: its body is not here.
        """
        found = self._loaded.get(code)
        if found is not None:
            self._loaded.move_to_end(code)
            self._shown.show(self._lines.get(code, {}))
            return found
        body = self._bodies.pop(code)
        lines = self._lines[code] = lines_of(blocks_of(body.body))
        self._shown.show(lines)
        found = self._loaded[code] = load(body, name)
        self._sizes[code] = len(body.body)
        while len(self._loaded) > self._limit or (len(self._loaded) > 1 and sum(self._sizes.values()) > FUNCTION_BYTES):
            self._drop(next(iter(self._loaded)))
        if isinstance(found, Failure):
            self._drop(code)  # the module may be installed by the next time; the body is asked for again
        return found

    def _drop(self, code: str) -> None:
        for kept in (self._loaded, self._lines, self._sizes):
            kept.pop(code, None)


def load(code: Code, name: str) -> Function | Failure:
    """Rebuild a function, or say in a `FunctionLoadError` what is missing and what to do."""
    name = name or "the function"
    if code.python and code.python != PYTHON and b"CodeType" in pickle_of(code.body):
        return dump(
            FunctionLoadError(
                f"{name} was pickled by Python {code.python} and this worker runs Python {PYTHON}, which cannot run "
                f"its byte code: use the same minor version on both sides"
            )
        )
    try:
        function = serialize.load_function(code.body)
    except BaseException as error:
        return _not_loaded(name, error)
    if not callable(function):
        return dump(FunctionLoadError(f"{name} is a {type(function).__qualname__}, not callable"))
    return function


def _not_loaded(what: str, error: BaseException) -> Failure:
    where = f"the worker (Python {PYTHON}, {sys.executable})"
    if isinstance(error, ModuleNotFoundError):
        message = (
            f"{what} needs the module {error.name!r}, which {where} does not have: install it there, or define the "
            f"code in the script or notebook that submits it, so that it travels by value"
        )
    elif isinstance(error, (ImportError, AttributeError)):
        message = (
            f"{what} refers to something that its module at {where} does not have ({text_of(error)}): install the same "
            f"version of the module on both sides"
        )
    else:
        message = f"{what} could not be unpickled at {where}: {type(error).__name__}: {text_of(error)}"
    return dump(FunctionLoadError(message), traceback_of(error))


def run(task: Task, functions: Functions, started: int, payloads: Payloads) -> Done:
    """Run a task; never raises.

    Args:
        task: what to run.
        functions: where the body of its function is.
        started: when it began, ns since the epoch.
        payloads: reads arguments and makes what is returned, large ones through the store.

    Returns:
        How it ended, without what it printed.
    """
    out = Outgoing(payloads, task)
    skew = started - monotonic_ns()  # the wall clock may be set meanwhile: how long it took is told by the other one
    try:
        enter(task.cause)
        function = functions.get(task.code, task.function)
        if isinstance(function, Failure):
            return Done(task.seq, started, monotonic_ns() + skew, failure=function)
        try:
            arguments = payloads.loads(task.payload)
        except StoreError as error:
            failure = dump(StoreError(f"the arguments of {task.function or 'the function'} cannot be had: {error}"))
            return Done(task.seq, started, monotonic_ns() + skew, failure=failure)
        except BaseException as error:
            failure = _not_loaded(f"an argument of {task.function or 'the function'}", error)
            return Done(task.seq, started, monotonic_ns() + skew, failure=failure)
        call = _chunk if task.items else _call
        return call(task, function, started, skew, arguments, out)
    except BaseException as error:  # an interrupt that arrived between the function's end and ours
        return Done(task.seq, started, monotonic_ns() + skew, failure=out.failure(error))


def _call(  # noqa: PLR0917
    task: Task, function: Function, started: int, skew: int, arguments: Any, out: Outgoing
) -> Done:
    try:
        args, kwargs = arguments
        value = function(*args, **kwargs)
        if isinstance(value, CoroutineType):
            with asyncio.Runner() as runner:
                value = runner.run(value)
    except BaseException as error:
        return Done(task.seq, started, monotonic_ns() + skew, failure=out.failure(error))
    finished = monotonic_ns() + skew
    payload = out.value(value)
    if isinstance(payload, Failure):
        return Done(task.seq, started, finished, failure=payload)
    return Done(task.seq, started, finished, payload, None, preview(value, size_of(payload)))


def _chunk(  # noqa: PLR0917
    task: Task, function: Function, started: int, skew: int, columns: list[list[Any]], out: Outgoing
) -> Done:
    count = min(map(len, columns), default=0)
    values: list[Any] = []
    bad: list[ItemFailure] = []
    calls = map(function, *columns)
    # list.extend keeps what it got before an exception, and the map goes on behind the item that raised: the loop
    # runs in C and no item is called twice. An item that raises StopIteration ends extend early, without a word.
    while len(values) < count:
        try:
            values.extend(calls)
            if len(values) >= count:
                break
            error: BaseException = RuntimeError("the function raised StopIteration")
        except BaseException as raised:
            error = raised
        bad.append(ItemFailure(index=len(values), failure=out.failure(error, brief=len(bad) >= FULL_FAILURES)))
        values.append(None)
    finished = monotonic_ns() + skew
    payload = out.value(values)
    if isinstance(payload, Failure) and any(isinstance(value, CoroutineType) for value in values):
        # nothing that is serialized: looked for only then, for a look costs as much as a call
        _await_each(values, bad, out)
        finished = monotonic_ns() + skew
        payload = out.value(values)
    if isinstance(payload, Failure):
        payload = _item_by_item(values, bad, out)
    if isinstance(payload, Failure):
        return Done(task.seq, started, finished, failure=payload)
    if bad and (size := len(payload) + len(msgspec.msgpack.encode(bad))) > MAX_PAYLOAD:
        error = PayloadTooLarge(
            f"{len(bad):,} of {count:,} items failed and their exceptions make {size:,} bytes, the limit is "
            f"{MAX_PAYLOAD:,}; the first: {bad[0].failure.type}: {bad[0].failure.message[:1000]}"
        )
        return Done(task.seq, started, finished, failure=dump(error))
    return Done(task.seq, started, finished, payload, None, preview(values, size_of(payload)), "", tuple(bad))


def _await_each(values: list[Any], bad: list[ItemFailure], out: Outgoing) -> None:
    """Run a chunk's coroutines, one after the other in one event loop (both lists change)."""
    with asyncio.Runner() as runner:
        for index, value in enumerate(values):
            if not isinstance(value, CoroutineType):
                continue
            try:
                values[index] = runner.run(value)
            except BaseException as error:
                values[index] = None
                bad.append(ItemFailure(index=index, failure=out.failure(error, brief=len(bad) >= FULL_FAILURES)))
    bad.sort(key=lambda item: item.index)


def _item_by_item(values: list[Any], bad: list[ItemFailure], out: Outgoing) -> bytes | Failure:
    """Serialize a chunk's values when one of them cannot be: that one becomes a bad item (both lists change)."""
    for index, value in enumerate(values):
        failure = out.refusal(value)
        if failure is not None:
            values[index] = None
            bad.append(ItemFailure(index=index, failure=failure))
    bad.sort(key=lambda item: item.index)
    return out.value(values)


OURS.add(__file__)
