"""Pickling by value: cloudpickle, made to say the same in every process.

What is different from cloudpickle's own pickler:
    code         keeps the name of its file, which tracebacks show (cloudpickle 3.1.3 drops it)
    classes      have an identity that follows from what they are, in place of a random one: a function that uses
                 a class is the same function in each process, and an instance that a worker sends back is an
                 instance of the caller's class
    submodules   that a function uses come in order of their names, not in the order they were imported
    functions    that go by value are noted, so that their source text can go with them

Guarantee: `pickle.loads` reads all of it, with cloudpickle installed and nothing of Upon.
Not here: which modules go by value (`upon.sdk.modules`), source text (`upon.source_text`).
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import ChainMap
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, Protocol

import cloudpickle
from cloudpickle import cloudpickle as inner

from upon.code_hash import IDENTITY, code_hash
from upon.locks import lock

_FILE_NAME = 10
"""Where a code object's arguments have the name of its file, in Python 3.10 and later."""
_IDENTITY_AT = {inner._make_skeleton_class: 4, inner._make_skeleton_enum: 5}
_lock = lock()


def dumps(value: Any) -> bytes:
    """Pickle a value, by value where it goes so. Raises whatever pickling raises."""
    return pickled(value)[0]


def pickled(value: Any) -> tuple[bytes, list[FunctionType]]:
    """Pickle a value; return its bytes and the functions in them by value, the outermost first."""
    with io.BytesIO() as file:
        pickler = Pickler(file)
        pickler.dump(value)
        return file.getvalue(), pickler.functions


class Writable(Protocol):
    """What a pickle is written into."""

    def write(self, data: Any, /) -> object: ...


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """See above.

    Attributes:
        functions: those that went by value, in the order of their pickling.
    """

    def __init__(self, file: Writable, buffer_callback: Callable[[Any], Any] | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.functions: list[FunctionType] = []

    def reducer_override(self, obj: Any) -> Any:
        known = not isinstance(obj, type) or obj in inner._DYNAMIC_CLASS_TRACKER_BY_CLASS
        found = super().reducer_override(obj)
        if found is NotImplemented:
            return found
        if isinstance(obj, FunctionType):
            self.functions.append(obj)
            _sort_submodules(found)
        elif not known:
            found = _with_identity(found, _identify(obj))
        return found


class _Nameless(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles classes without identity, and leaves none behind."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.new: list[type] = []

    def reducer_override(self, obj: Any) -> Any:
        is_new = isinstance(obj, type) and obj not in inner._DYNAMIC_CLASS_TRACKER_BY_CLASS
        found = super().reducer_override(obj)
        if found is NotImplemented:
            return found
        if isinstance(obj, type):
            if is_new:
                self.new.append(obj)
            found = _with_identity(found, "")
        elif isinstance(obj, FunctionType):
            _sort_submodules(found)
        return found


def _code(code: CodeType) -> Any:
    make, parts = cloudpickle.Pickler.dispatch_table.maps[0][CodeType](code)
    return make, (*parts[:_FILE_NAME], "".join(code.co_filename), *parts[_FILE_NAME + 1 :])


Pickler.dispatch_table = ChainMap({CodeType: _code}, *cloudpickle.Pickler.dispatch_table.maps)


def _sort_submodules(found: Any) -> None:
    submodules = found[2][1]["_cloudpickle_submodules"]
    submodules.sort(key=lambda module: module.__name__)


def _with_identity(found: Any, identity: str) -> Any:
    make, arguments, *rest = found
    at = _IDENTITY_AT.get(make)
    if at is None:  # a class that goes by name, such as NoneType
        return found
    return make, (*arguments[:at], identity, *arguments[at + 1 :]), *rest


def _identify(cls: type) -> str:
    """Give a class its identity in place of the one that cloudpickle drew, here and in what comes back from workers."""
    with _lock:
        content = _content(cls)
        for number in range(1_000_000):
            named = hashlib.sha256(f"{content} {number}".encode()).digest()[:15]
            identity = IDENTITY + base64.b64encode(named).decode()
            # One that another class has, equal and alive: made by the same function, or in a cell that was run again.
            if inner._DYNAMIC_CLASS_TRACKER_BY_ID.get(identity, cls) is cls:
                break
        with inner._DYNAMIC_CLASS_TRACKER_LOCK:
            before = inner._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(cls)
            inner._DYNAMIC_CLASS_TRACKER_BY_ID.pop(before, None)
            inner._DYNAMIC_CLASS_TRACKER_BY_CLASS[cls] = identity
            inner._DYNAMIC_CLASS_TRACKER_BY_ID[identity] = cls
        return identity


def _content(cls: type) -> str:
    with io.BytesIO() as file:
        pickler = _Nameless(file)
        try:
            pickler.dump(cls)
        except Exception:  # it is about to fail again, where its user hears of it
            return f"{cls.__module__}.{cls.__qualname__}"
        finally:
            with inner._DYNAMIC_CLASS_TRACKER_LOCK:
                for new in pickler.new:
                    inner._DYNAMIC_CLASS_TRACKER_BY_ID.pop(inner._DYNAMIC_CLASS_TRACKER_BY_CLASS.pop(new, None), None)
        return code_hash(file.getvalue())
