"""A Result as a user meets it: a value, or an exception to raise.

Guarantee: an exception that the function raised comes back as itself, with its own chain of causes and a
`RemoteTraceback` at the end of that; what
the fabric says of a task (WorkerLost, TaskTimeout …) as that class of `upon.errors`; an exception whose class this
process does not have as `RemoteError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from upon import serialize
from upon.errors import (
    RemoteError,
    RemoteTraceback,
    ResultError,
    RuleError,
    StoreError,
    TaskCancelled,
    UponError,
    all_errors,
)
from upon.exceptions import root_cause
from upon.messages import Failure, Result
from upon.store.reference import size_of

Loads = Callable[[bytes], Any]
"""Rebuilds what a payload holds: `serialize.loads`, or what reads from a store as well."""


def exception(failure: Failure, loads: Loads = serialize.loads) -> BaseException:
    """Return the exception that a failure stands for; the worker's traceback is its cause, or its last cause's."""
    found, why_not = _rebuilt(failure, loads)
    if found is None:
        found = _of_the_tree(failure)
    if found is None:
        reason = (
            f"\n(it is not raised as {failure.type} itself, for it cannot be rebuilt: {why_not})" if why_not else ""
        )
        found = RemoteError(f"{failure.type}: {failure.message}{reason}")
    if failure.traceback:
        root_cause(found).__cause__ = RemoteTraceback(failure.traceback)
    return found


def _rebuilt(failure: Failure, loads: Loads) -> tuple[BaseException | None, str]:
    if not failure.payload:
        return None, failure.unbuilt
    try:
        found = loads(failure.payload)
    except BaseException as error:  # its class is not here, or not as it was: RemoteError tells what is known
        return None, f"{type(error).__name__}: {serialize.text_of(error)}"
    if isinstance(found, Exception):
        return found, ""
    return None, f"its payload holds a {type(found).__name__}"


def _of_the_tree(failure: Failure) -> UponError | None:
    cls = all_errors().get(failure.type)
    if cls is None or (failure.kinds and "UponError" not in failure.kinds):
        return None
    return RuleError(failure.message) if cls is RuleError else cls(failure.message)


def error_of(result: Result, loads: Loads = serialize.loads) -> BaseException | None:
    """Return the exception of a result that is no success; None for a success."""
    if result.status == "succeeded":
        return None
    if result.failure is not None:
        return exception(result.failure, loads)
    if result.status == "cancelled":
        return TaskCancelled(f"task {result.id} ({result.function}) was cancelled")
    return RemoteError(f"task {result.id} ({result.function}) failed and did not say why")


def value_of(result: Result, loads: Loads = serialize.loads) -> Any:
    """Return the value of a successful result; a map chunk's is a `Chunk`.

    Raises:
        StoreError: the value lies in a store, and cannot be had.
        ResultError: the value arrived and cannot be rebuilt here, for instance for want of its module.
    """
    try:
        value = loads(result.payload)
    except StoreError as error:
        raise StoreError(
            f"task {result.id} ({result.function}) succeeded; its result cannot be had: {error}"
        ) from error
    except Exception as error:
        raise ResultError(
            f"task {result.id} ({result.function}) succeeded, but its result cannot be rebuilt in this process: "
            f"{type(error).__name__}: {serialize.text_of(error)}"
        ) from error
    if not result.items:
        return value
    took = (result.timings.finished - result.timings.started) / 1e9
    return Chunk(value, {bad.index: bad.failure for bad in result.bad_items}, loads, took, size_of(result.payload))


@dataclass(frozen=True, slots=True)
class Chunk:
    """The values of a map chunk; at the position of a bad item there is no value but a failure.

    Attributes:
        seconds: how long it ran.
        size: bytes of all its values, serialized.
    """

    values: list[Any]
    bad: dict[int, Failure]
    loads: Loads = serialize.loads
    seconds: float = 0.0
    size: int = 0

    def items(self) -> Iterator[Any]:
        """Return the values to iterate over, once: each is taken out, so that it lives as long as its user wants.

        A bad item raises at its position, and the next one may be asked for.
        """
        if self.bad:
            return ChunkItems(self)
        self.values.reverse()
        return map(self.values.pop, repeat(-1, len(self.values)))  # iterates in C


class ChunkItems:
    """Iterates over a chunk with bad items. A generator would end at the first."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk, self._next = chunk, 0

    def __iter__(self) -> ChunkItems:
        return self

    def __next__(self) -> Any:
        position = self._next
        if position >= len(self._chunk.values):
            raise StopIteration
        self._next += 1
        failure = self._chunk.bad.get(position)
        if failure is not None:
            raise exception(failure, self._chunk.loads)
        value, self._chunk.values[position] = self._chunk.values[position], None
        return value
