"""A Python function as it travels: pickled by value when the worker may not have its module, named by its content.

By reference go functions of the standard library, of installed packages (site-packages) and of Upon itself: a worker
has them, in its own version. By value go functions of scripts, notebooks, modules beside a script and test modules,
and what they use of such modules.

Guarantee: a plain function is pickled once and again only when a global or closure variable that it names was bound
anew; a change *inside* such a variable's value (a list appended to) is not noticed. Of bound methods and partials the
function is the code, and what they bind travels as arguments. Callable objects are pickled at each submit, for their
state may have changed.
"""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from upon import pickling, serialize, source_form, source_text
from upon.code_hash import code_hash
from upon.errors import FunctionError, InputError, PayloadTooLarge, StoreError
from upon.locks import lock
from upon.messages import MAX_PAYLOAD, FunctionCode
from upon.sdk.modules import stays_behind, travelling
from upon.sdk.pythons import PYTHON, UNKNOWN, Pythons
from upon.source_form import NotAsSource
from upon.source_text import pickle_of
from upon.store.payloads import Payloads
from upon.store.reference import ARGUMENTS

MAX_NAME = 200
"""Characters of a function's name that the service takes."""
BYTE_CODE = b"CodeType"
"""What stands in each pickle that has byte code in it."""
_MISSING = object()
_lock = lock()


@dataclass(frozen=True, slots=True)
class _Known:
    code: FunctionCode
    names: tuple[str, ...]  # globals that the function names
    bound: tuple[Any, ...]  # what its names were bound to when it was pickled
    pythons: Pythons  # that were to run it


_cache: weakref.WeakKeyDictionary[Callable[..., Any], _Known] = weakref.WeakKeyDictionary()


def code_of(function: Callable[..., Any], pythons: Pythons = UNKNOWN) -> FunctionCode:
    """Return a function as it travels. About 1 µs when it is known already.

    Args:
        pythons: what is to run it. If some are of another minor version it travels as source text, where that is
            possible; its `python` is empty then.

    Raises:
        FunctionError: not callable, not picklable (the message names the culprit where it can), too large; or it is of
            another Python than all that are to run it, and cannot go as source text.
    """
    if isinstance(function, BuiltinFunctionType):
        return _of_a_module(function) if isinstance(function.__self__, ModuleType) else _pickled(function, pythons)
    if not isinstance(function, FunctionType):
        return _pickled(function, pythons)
    found = _cache.get(function)
    if (
        found is not None
        and (found.pythons is pythons or found.pythons == pythons)
        and all(map(is_, found.bound, _variables(function, found.names)))
    ):
        return found.code
    names = _names(function.__code__)
    bound = _variables(function, names)
    found = _cache[function] = _Known(_pickled(function, pythons), names, bound, pythons)
    return found.code


def apart(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]:
    """Return the plain function of a partial or a bound method, and all arguments of this call of it.

    What they bind is data of the call, which may be other data at the next: code is what stays the same.
    """
    while True:
        if type(function) is partial:
            args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
            function = function.func
        elif isinstance(function, MethodType) and isinstance(function.__func__, FunctionType):
            args, function = (function.__self__, *args), function.__func__
        else:
            return function, args, kwargs


@lru_cache(maxsize=256)
def _of_a_module(function: Callable[..., Any]) -> FunctionCode:
    """Return a built-in function of a module, such as `pow`: it has no state."""
    return _pickled(function, UNKNOWN)


def name_of(function: Callable[..., Any] | str) -> str:
    """Return what to call a function that nobody gave a name: its own, with its class but no enclosing function."""
    if isinstance(function, str):  # somebody gave it one
        return function
    inner = getattr(function, "func", None)  # of a partial
    named = inner if callable(inner) and not hasattr(function, "__qualname__") else function
    name = getattr(named, "__qualname__", None) or type(named).__qualname__
    return str(name).rpartition("<locals>.")[2][:MAX_NAME]


def source_of(function: Callable[..., Any]) -> str:
    """Return a function's source text, empty if there is none to be had."""
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return ""


def description_of(function: Callable[..., Any]) -> str:
    """Return the first line of a function's docstring, empty if it has none."""
    return (inspect.getdoc(function) or "").strip().partition("\n")[0]


def pack_call(
    payloads: Payloads, task: str, function: Callable[..., Any] | str, args: Sequence[Any], kwargs: dict[str, Any]
) -> bytes:
    """Serialize the arguments of a task's call; large ones go into the store.

    Raises:
        InputError: an argument cannot be serialized; the message says which.
        PayloadTooLarge: they are over the record limit, and no store is in reach.
        StoreError: the store has no room for them.
    """
    try:
        return payloads.dumps([list(args), kwargs], task, ARGUMENTS, travelling())
    except (PayloadTooLarge, StoreError) as error:
        raise type(error)(f"the arguments of {name_of(function)}: {error}") from error
    except Exception as error:
        named = [
            *((f"argument {i + 1}", v) for i, v in enumerate(args)),
            *((f"argument {k}", v) for k, v in kwargs.items()),
        ]
        raise _unserializable(f"{name_of(function)}", named, error) from error


def pack_chunk(
    payloads: Payloads, task: str, function: Callable[..., Any] | str, columns: Sequence[Sequence[Any]]
) -> bytes:
    """Serialize the arguments of a map chunk, one column per iterable. Raises as `pack_call`."""
    try:
        return payloads.dumps([list(column) for column in columns], task, ARGUMENTS, travelling())
    except PayloadTooLarge as error:
        raise PayloadTooLarge(f"a chunk of {name_of(function)}: {error}; a smaller chunksize helps") from error
    except StoreError as error:
        raise StoreError(f"a chunk of {name_of(function)}: {error}") from error
    except Exception as error:
        named = [(f"item {i} of iterable {n + 1}", v) for n, column in enumerate(columns) for i, v in enumerate(column)]
        raise _unserializable(f"a chunk of {name_of(function)}", named, error) from error


def _unserializable(what: str, named: Sequence[tuple[str, Any]], error: Exception) -> InputError:
    for name, value in named:
        try:
            serialize.dumps(value)
        except Exception as found:
            return InputError(f"{name} of {what} (a {_kind(value)}) cannot be serialized: {found}")
    return InputError(f"the arguments of {what} cannot be serialized: {type(error).__name__}: {error}")


def check_arguments(payload: bytes, function: Callable[..., Any] | str, pythons: Pythons) -> None:
    """Raise InputError if arguments have byte code in them that no worker can run."""
    if pythons.is_none_ours and payload[:1] == b"c" and BYTE_CODE in payload:
        raise InputError(
            f"the arguments of {name_of(function)} hold functions or classes of this program, byte code of Python "
            f"{PYTHON}, and the site's workers run Python {pythons}: use the same minor version on both sides, or pass "
            "plain data or what is of a module that both have"
        )


def _pickled(function: Callable[..., Any], pythons: Pythons) -> FunctionCode:
    if not callable(function):
        raise FunctionError(f"{function!r} is not callable: give a function")
    travelling()
    by_value: list[FunctionType] = []
    try:
        with _lock:
            body, python = serialize.dump_function(function, by_value), PYTHON
            if pythons.others and BYTE_CODE in pickle_of(body):
                body, python = _as_source(function, body, pythons)
    except NotAsSource as error:
        raise FunctionError(
            f"{name_of(function)} is byte code of Python {PYTHON}, and the workers run Python {pythons}; it does not "
            f"travel as source text, because {error}: use the same minor version on both sides"
        ) from error
    except Exception as error:
        raise FunctionError(_story(function, error)) from error
    if len(body) > MAX_PAYLOAD:
        raise FunctionError(
            f"{name_of(function)} is {len(body):,} bytes pickled, the limit is {MAX_PAYLOAD:,}: "
            "does it use a large global? pass that as an argument or load it inside the function"
        )
    for module, user, line in stays_behind(by_value):
        warnings.warn(
            f"{user} imports {module} inside itself ({line}), and {module} does not travel with it: import it at the "
            "top of the file, or install it at the site",
            stacklevel=2,
        )
    return FunctionCode(hash=code_hash(body), body=body, python=python)


def _as_source(function: Callable[..., Any], body: bytes, pythons: Pythons) -> tuple[bytes, str]:
    """Return a function's body as source text, for any Python; if it cannot go so, as it is, for ours, if one is there.

    Raises:
        NotAsSource: none is there.
    """
    try:
        data, found = source_form.dumps(function, pythons.there)
        return source_text.attach(data, source_text.gather(found)), ""
    except Exception as error:
        if not pythons.is_none_ours:
            return body, PYTHON
        if isinstance(error, NotAsSource):
            raise
        raise NotAsSource(f"what it uses does not pickle without byte code ({error})") from error


# ── which variables a function names ──────────────────────────────────────────────────────────────────────────────


def _variables(function: FunctionType, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Return what the function's names are bound to now: code, defaults, globals, closure."""
    bound = function.__globals__.get
    found = (function.__code__, function.__defaults__, function.__kwdefaults__, *[bound(n, _MISSING) for n in names])
    if function.__closure__ is None:
        return found
    return found + tuple(map(_contents, function.__closure__))


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _MISSING


def _names(code: CodeType) -> tuple[str, ...]:
    inner = [name for const in code.co_consts if isinstance(const, CodeType) for name in _names(const)]
    return tuple(dict.fromkeys([*code.co_names, *inner]))


# ── who is to blame ───────────────────────────────────────────────────────────────────────────────────────────────


def _story(function: Callable[..., Any], error: Exception) -> str:
    place = ""
    if isinstance(function, FunctionType):
        place = f" ({function.__code__.co_filename}:{function.__code__.co_firstlineno})"
    culprit = _culprit(function, set())
    if culprit is None:
        return f"function {name_of(function)}{place} cannot be pickled: {type(error).__name__}: {error}"
    path, value = culprit
    return (
        f"function {name_of(function)}{place} cannot be pickled, because it uses {path}, a {_kind(value)}: {error}; "
        "create it inside the function, or pass what is needed as an argument"
    )


def _culprit(function: Any, seen: set[int]) -> tuple[str, Any] | None:
    """Return the variable that does not pickle and the way to it, None if none is found."""
    if id(function) in seen:
        return None
    seen.add(id(function))
    for name, value in _used(function):
        if value is function or _pickles(value):
            continue
        deeper = _culprit(value, seen)
        return (f"{name} → {deeper[0]}", deeper[1]) if deeper else (name, value)
    return None


def _used(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, FunctionType):
        for name in _names(value.__code__):
            if name in value.__globals__:
                yield f"the global {name!r}", value.__globals__[name]
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            yield f"the variable {name!r}", _contents(cell)
    elif isinstance(value, ModuleType):
        yield from ((f"its {name!r}", v) for name, v in vars(value).items() if not name.startswith("__"))
    elif inspect.ismethod(value):
        yield "its object", value.__self__
    elif hasattr(value, "func") and hasattr(value, "args"):
        yield "the function", value.func
        yield from ((f"its argument {i + 1}", one) for i, one in enumerate(value.args))
        yield from ((f"its argument {name}", one) for name, one in value.keywords.items())
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from ((f"its attribute {name!r}", one) for name, one in vars(value).items())


def _pickles(value: Any) -> bool:
    try:
        pickling.dumps(value)
    except Exception:
        return False
    return True


def _kind(value: Any) -> str:
    if isinstance(value, ModuleType):
        return f"module ({value.__name__})"
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
