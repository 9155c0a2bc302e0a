"""Python values to bytes and back: several methods, the one used named by the first byte (funcX, section 4.6).

    m   MessagePack: plain data only (None, bool, int, float, str, bytes, list, dict with str keys), exact types.
        Any language reads it; the service shows it without running anybody's code.
    p   pickle, protocol 5: everything else that pickles by reference.
    c   cloudpickle: lambdas, closures, classes of `__main__`.
    r   a reference: the payload itself, which is one of the above, lies in a store (`upon.store` reads and writes it).

Guarantee: `loads(dumps(x))` has x's types; what would not survive MessagePack is pickled.
Only SDK and workers may `loads`, for that can run code; the service and stream workers use `loads_plain`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from types import AsyncGeneratorType, FunctionType, GeneratorType
from typing import Any, BinaryIO

import msgspec

from upon import pickling, source_text
from upon.errors import InputError, PayloadTooLarge, ResultError, StoreError
from upon.exceptions import Portable
from upon.messages import MAX_PAYLOAD, Failure
from upon.spool import Spool

_SCALARS = frozenset({int, str, float, bool, type(None), bytes})
MAX_REASON = 500
"""Characters of the reason why an exception could not be rebuilt."""
_MAX_PLAIN_NODES = 256
"""Past so many values pickle is as fast as checking that all are plain."""
MAIN = b"__main__"
"""What is pickled by reference to this module goes by value: the other side has another one."""

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def _plain(value: Any) -> bool:
    waiting, seen, size = [value], 0, 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > _MAX_PLAIN_NODES:
            return False
        kind = type(item)
        if kind is int:
            if not -(2**63) <= item < 2**64:
                return False
        elif kind in _SCALARS:
            if kind is str or kind is bytes:
                size += len(item)
                if size > MAX_PAYLOAD:  # no record holds it: a pickler writes it without a copy
                    return False
        elif kind is list:
            waiting += item
        elif kind is dict:
            for key in item:
                if type(key) is not str:
                    return False
            waiting += item.values()
        else:
            return False
    return True


def packed(value: Any) -> bytes | None:
    """Return a value in MessagePack if it is plain data and not large; None for all else.

    That includes text that is no UTF-8, such as the name of a file in another code.
    """
    if not _plain(value):
        return None
    try:
        return b"m" + _pack(value)
    except UnicodeEncodeError:
        return None


def dumps(value: Any, most: int = MAX_PAYLOAD) -> bytes:
    """Serialize any value into memory.

    Raises:
        PayloadTooLarge: the bytes are more than `most`.
        Exception: whatever pickling raised (TypeError, PicklingError …), when no method takes the value.
    """
    if (data := packed(value)) is not None:
        return data
    spool = Spool(watched=[MAIN], most=most)
    pickle_into(spool, value)
    return spool.getvalue()


def pickle_into(spool: Spool, value: Any) -> None:
    """Pickle a value; by value, if by reference it cannot or would refer to what the spool watches for.

    Raises:
        StoreError: where the spool is led takes no more.
        Exception: whatever pickling raised.
    """
    spool.begin(b"p")
    try:
        pickle.Pickler(spool, protocol=5, buffer_callback=spool.take).dump(value)
        if not spool.seen:
            return
    except StoreError:
        raise
    except Exception:  # by value it may go; if not, that says why
        pass
    spool.begin(b"c")
    pickling.Pickler(spool, spool.take).dump(value)


def dumps_plain(value: Any, most: int = MAX_PAYLOAD) -> bytes:
    """Serialize plain data, whatever its size, without pickle (for parts that must not unpickle).

    Raises:
        InputError: the value is not plain data.
        PayloadTooLarge: as for `dumps`.
    """
    try:
        data = b"m" + _pack(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise InputError(f"not plain data: {error}") from error
    if len(data) > most:
        raise PayloadTooLarge(f"{len(data):,} bytes serialized, the limit is {most:,}")
    return data


def loads(data: bytes) -> Any:
    """Rebuild a value. Runs code that the data names: only for data of a trusted origin.

    Raises:
        InputError: unknown method, empty data, or damaged plain data.
        Exception: whatever unpickling raised.
    """
    match data[:1]:
        case b"m":
            return loads_plain(data)
        case b"p" | b"c":
            return pickle.loads(memoryview(data)[1:])
        case other:
            raise InputError(f"payload of unknown serialization method {other!r}")


def load(file: BinaryIO, size: int, buffers: Sequence[bytearray | memoryview]) -> Any:
    """Rebuild a value that `pickle_into` has led into a file, where it has `size` bytes, with its buffers.

    Raises as `loads`.
    """
    method = file.read(1)
    if method in (b"p", b"c"):
        return pickle.Unpickler(file, buffers=buffers).load()
    return loads(method + file.read(size - 1))


def is_plain(data: bytes) -> bool:
    """Tell whether `data` is plain data, which `loads_plain` reads."""
    return data[:1] == b"m"


def loads_plain(data: bytes) -> Any:
    """Rebuild plain data; never runs code.

    Raises:
        InputError: the payload is pickled, or damaged.
    """
    if not is_plain(data):
        raise InputError("the payload is a Python object, not plain data")
    try:
        return _unpack(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"damaged payload: {error}") from error
    except (RecursionError, MemoryError, OverflowError) as error:
        raise InputError(f"damaged payload: its lists and maps do not fit ({type(error).__name__})") from error


def pack_call(args: Sequence[Any], kwargs: dict[str, Any]) -> bytes:
    """Serialize the arguments of one call, as `[args, kwargs]`. Raises as `dumps`."""
    return dumps([list(args), kwargs])


def unpack_call(payload: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Return args and kwargs of `pack_call`. Raises as `loads`."""
    args, kwargs = loads(payload)
    return args, kwargs


def pack_chunk(columns: Sequence[Sequence[Any]]) -> bytes:
    """Serialize a map chunk: one column per iterable, all of one length. Raises as `dumps`."""
    return dumps([list(column) for column in columns])


def unpack_chunk(payload: bytes) -> list[list[Any]]:
    """Return the columns of `pack_chunk`. Raises as `loads`."""
    columns: list[list[Any]] = loads(payload)
    return columns


def dump_function(function: Callable[..., Any], by_value: list[FunctionType] | None = None) -> bytes:
    """Return a function's body: its pickle, and its source text as far as it can be had.

    Args:
        by_value: gets the functions whose code is in the body. Raises whatever pickling raises.
    """
    data, functions = pickling.pickled(function)
    if by_value is not None:
        by_value += functions
    return source_text.attach(data, source_text.gather(functions))


def load_function(body: bytes) -> Callable[..., Any]:
    """Rebuild a function of `dump_function`. Raises whatever unpickling or importing raises."""
    function: Callable[..., Any] = pickle.loads(body)
    return function


def dump_failure(error: BaseException, traceback: str = "", most: int = MAX_PAYLOAD) -> Failure:
    """Return an exception as it travels: itself where it can be rebuilt, else with the reason why not.

    Never raises, whatever the exception's own methods do; takes as long as they take.

    Args:
        most: bytes of its payload at most.
    """
    payload, unbuilt = _dump_exception(error, most)
    kinds = tuple(cls.__name__ for cls in type(error).__mro__ if cls not in (object, BaseException))
    return Failure(
        type=type(error).__name__,
        message=text_of(error),
        traceback=traceback,
        kinds=kinds,
        payload=payload,
        unbuilt=unbuilt,
    )


def text_of(error: BaseException) -> str:
    """Return an exception's message; if it has none to say, why."""
    try:
        return "".join(str(error))
    except BaseException as broken:
        return f"<its __str__ raised {type(broken).__name__}>"


def _dump_exception(error: BaseException, most: int) -> tuple[bytes, str]:
    """Return an exception's payload, or no payload and the reason why it cannot be rebuilt."""
    reason = ""
    for form in (Portable(error), error, Portable(error, _why_not)):
        try:
            payload = dumps(form, most)
            found = loads(payload)
        except BaseException as failed:
            reason = reason or f"{type(failed).__name__}: {text_of(failed)}"[:MAX_REASON]
        else:
            if type(found) is type(error) and (_speaks(found) or not _speaks(error)):
                return payload, ""
            reason = reason or "what comes back from its pickle is not what was raised"
    return b"", reason


def _speaks(error: BaseException) -> bool:
    try:
        str(error)
    except BaseException:
        return False
    return True


def _why_not(value: Any) -> str:
    try:
        loads(dumps(value))
    except BaseException as failed:
        return f"{type(failed).__name__}: {text_of(failed)}"[:MAX_REASON]
    return ""


def unserializable(value: Any, error: BaseException) -> ResultError:
    """Return the error for a result that no method takes."""
    if isinstance(value, GeneratorType | AsyncGeneratorType):
        return ResultError(
            "the function is a generator (it has a `yield`), and what it would yield stays in the worker: return a "
            f"list, such as `return [{'x async' if isinstance(value, AsyncGeneratorType) else 'x'} for x in ...]`"
        )
    return ResultError(
        f"the function returned a {type(value).__module__}.{type(value).__qualname__}, which cannot be serialized "
        f"({type(error).__name__}: {text_of(error)}); return plain data, arrays or picklable objects, or write to a "
        "file and return its path"
    )
