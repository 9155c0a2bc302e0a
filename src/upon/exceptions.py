"""Exceptions in a form that travels: taken apart where they were raised, put together where they are seen.

Pickle rebuilds an exception by calling its class with its `args`; a class whose `__init__` takes something else then
fails to come back, and one whose `__init__` does something does it again. Here the parts are put into a new object
and only the `__init__` of the built-in class below is called. An exception that says itself how it is pickled
(`__reduce__`, `__getstate__` …) is pickled so.

Kept: class, `args`, attributes, `__slots__`, notes, the chain of `__cause__`, the members of an exception group.
Not kept: `__context__` and the traceback, which travel as text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

MAX_CHAIN = 20
"""Causes of causes that travel, and groups in groups."""
_OWN_WAYS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")


class Portable:
    """An exception that pickles, and comes back as what it was.

    Args:
        error: the exception.
        travels: tells why a value does not travel, empty if it does. What does not is left out, and a note says so.
    """

    def __init__(
        self, error: BaseException, travels: Callable[[Any], str] | None = None, depth: int = MAX_CHAIN
    ) -> None:
        self._error, self._travels, self._depth = error, travels, depth

    def __reduce__(self) -> tuple[Any, ...]:
        error, cause = self._error, self._error.__cause__
        chain = self._portable(cause) if cause is not None and self._depth > 0 else None
        if _has_own_way(type(error)):
            return _with_cause, (error, chain, error.__suppress_context__)
        reduced: tuple[Any, ...] = error.__reduce__()  # type: ignore[assignment]  # a built-in class's own
        args, state = reduced[1], reduced[2] if len(reduced) > 2 else None
        attributes = {**(state or {}), **_slots(error)}
        if isinstance(error, BaseExceptionGroup) and len(args) == 2 and self._depth > 0:
            args = (args[0], [self._portable(one) for one in error.exceptions])
        args, attributes = self._without_what_stays(args, attributes)
        return rebuild, (type(error), args, attributes, chain, error.__suppress_context__)

    def _portable(self, error: BaseException) -> Portable:
        return Portable(error, self._travels, self._depth - 1)

    def _without_what_stays(self, args: Any, attributes: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if self._travels is None:
            return args, attributes
        why = {f"args[{n}]": reason for n, one in enumerate(args) if (reason := self._travels(one))}
        why |= {name: reason for name, one in attributes.items() if (reason := self._travels(one))}
        if not why:
            return args, attributes
        args = tuple(f"<{type(one).__name__}>" if f"args[{n}]" in why else one for n, one in enumerate(args))
        attributes = {name: one for name, one in attributes.items() if name not in why}
        notes = attributes.get("__notes__")
        said = "; ".join(f"{name} ({reason})" for name, reason in why.items())
        attributes["__notes__"] = [*(notes if isinstance(notes, list) else []), f"did not travel: {said}"]
        return args, attributes


def rebuild(
    cls: type[BaseException],
    args: tuple[Any, ...],
    attributes: dict[str, Any],
    cause: BaseException | None,
    alone: bool,
) -> BaseException:
    """Return an exception of these parts; no code of its class runs."""
    new = next(
        vars(base)["__new__"] for base in cls.__mro__ if isinstance(vars(base).get("__new__"), BuiltinFunctionType)
    )
    error: BaseException = new(cls, *args)
    init = next(vars(base)["__init__"] for base in cls.__mro__ if _is_built_in(vars(base).get("__init__")))
    init(error, *args)
    for name, value in attributes.items():
        if _is_slot(cls, name):
            object.__setattr__(error, name, value)
        else:
            error.__dict__[name] = value
    return _with_cause(error, cause, alone)


def _with_cause(error: BaseException, cause: BaseException | None, alone: bool) -> BaseException:
    error.__cause__ = cause
    error.__suppress_context__ = alone
    return error


def root_cause(error: BaseException) -> BaseException:
    """Return the last of the chain of `__cause__` that begins with `error`."""
    seen: set[int] = set()
    while error.__cause__ is not None and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__
    return error


def _has_own_way(cls: type) -> bool:
    return any(isinstance(vars(base).get(name), FunctionType) for base in cls.__mro__ for name in _OWN_WAYS)


def _is_built_in(method: Any) -> bool:
    return method is not None and not isinstance(method, FunctionType) and inspect.isroutine(method)


def _is_slot(cls: type, name: str) -> bool:
    found = inspect.getattr_static(cls, name, None)
    return inspect.ismemberdescriptor(found) or inspect.isgetsetdescriptor(found)


def _slots(error: BaseException) -> dict[str, Any]:
    found = {}
    for base in type(error).__mro__:
        names = vars(base).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else tuple(names):
            if inspect.ismemberdescriptor(vars(base).get(name)):
                try:
                    found[name] = object.__getattribute__(error, name)
                except AttributeError:
                    continue  # not set
    return found
