from __future__ import annotations

import json
import subprocess
import threading
from concurrent import futures
from functools import partial
from typing import cast

import pytest

from upon import serialize
from upon.errors import (
    PayloadTooLarge,
    RemoteError,
    RemoteTraceback,
    ResultError,
    TaskCancelled,
    TaskTimeout,
    WorkerLost,
)
from upon.messages import Failure, ItemFailure, Result
from upon.sdk.connection import Connection
from upon.sdk.future import TaskFuture
from upon.sdk.outcome import error_of, exception, value_of


class Particular(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a = a


class KeywordOnly(Particular, OSError):
    def __init__(self, *, path: str) -> None:
        super().__init__(1, 2)
        self.path = path


class Slotted(ValueError):
    __slots__ = ("code",)

    def __init__(self, code: int, *, more: str) -> None:
        super().__init__(code, more)
        self.code = code


class Once(Exception):
    made = 0

    def __init__(self) -> None:
        Once.made += 1
        if Once.made > 1:
            raise RuntimeError("made once already")


class Reduced(Exception):
    def __init__(self, *, a: int) -> None:
        self.a = a

    def __reduce__(self) -> tuple[object, ...]:
        return partial(Reduced, a=self.a), ()


class Never(Exception):
    def __init__(self, *, a: int) -> None:
        super().__init__("never")

    def __reduce__(self) -> tuple[object, ...]:
        return (Never, ())


def travelled(error: BaseException) -> BaseException:
    return exception(serialize.dump_failure(error, "Traceback …"))


def test_an_exception_whose_init_takes_other_arguments_comes_back_as_itself() -> None:
    found = travelled(KeywordOnly(path="/data"))
    assert type(found) is KeywordOnly
    assert (found.path, found.a, str(found)) == ("/data", 1, "1 and 2")
    slotted = travelled(Slotted(3, more="x"))
    assert (type(slotted), slotted.args, slotted.code) == (Slotted, (3, "x"), 3)  # type: ignore[attr-defined]
    assert type(travelled(Once())) is Once
    assert Once.made == 1, "no code of the class ran again"
    reduced = travelled(Reduced(a=4))
    assert (type(reduced), reduced.a) == (Reduced, 4)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "gone", "/data/a.h5"),
        OSError(5, "io", "/a", None, "/b"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ImportError("no", name="n", path="/p"),
        ModuleNotFoundError("no", name="n"),
        StopIteration(3),
        SyntaxError("bad", ("f.py", 1, 2, "x", 1, 3)),
        KeyError("k"),
        subprocess.CalledProcessError(3, ["ls"], b"out"),
        json.JSONDecodeError("bad", "doc", 1),
        SystemError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_of_the_standard_library_come_back_whole(error: Exception) -> None:
    found = travelled(error)
    assert type(found) is type(error)
    assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))
    for name in ("errno", "filename", "filename2", "value", "lineno", "name", "path", "object", "start", "cmd", "doc"):
        assert getattr(found, name, None) == getattr(error, name, None)


def test_notes_causes_and_groups_come_along() -> None:
    error = ValueError("bad")
    error.add_note("of sample 3")
    error.__cause__ = KeywordOnly(path="/x")
    error.__cause__.__cause__ = KeyError("k")
    found = travelled(error)
    assert found.__notes__ == ["of sample 3"]
    first = found.__cause__
    assert isinstance(first, KeywordOnly)
    assert isinstance(first.__cause__, KeyError)
    assert isinstance(first.__cause__.__cause__, RemoteTraceback)
    group = travelled(ExceptionGroup("several", [KeywordOnly(path="/y"), error]))
    assert isinstance(group, ExceptionGroup)
    assert [type(one) for one in group.exceptions] == [KeywordOnly, ValueError]
    own = ValueError("of itself")
    own.__cause__ = own
    assert type(travelled(own)) is ValueError


def test_what_an_exception_holds_that_does_not_travel_is_left_out_and_named() -> None:
    error = Particular(1, 2)
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    found = travelled(error)
    assert type(found) is Particular
    assert (found.a, hasattr(found, "lock")) == (1, False)
    assert "lock (TypeError: cannot pickle '_thread.lock' object)" in found.__notes__[0]


def test_what_cannot_be_rebuilt_says_why() -> None:
    found = travelled(Never(a=1))
    assert type(found) is RemoteError
    assert str(found).startswith("Never: never\n")
    assert "missing 1 required keyword-only argument: 'a'" in str(found)


def test_an_exception_comes_back_as_itself() -> None:
    error = exception(serialize.dump_failure(KeyError("x"), "Traceback …"))
    assert type(error) is KeyError
    assert error.args == ("x",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert error.__cause__.text == "Traceback …"


@pytest.mark.parametrize("cls", [WorkerLost, TaskTimeout, ResultError, PayloadTooLarge])
def test_what_the_fabric_says_is_of_the_tree(cls: type[Exception]) -> None:
    failure = Failure(type=cls.__name__, message="why", traceback="the story", kinds=(cls.__name__, "UponError"))
    assert type(exception(failure)) is cls
    assert str(exception(failure)) == "why"
    assert type(exception(Failure(type=cls.__name__, message="why"))) is cls


@pytest.mark.parametrize(
    "failure",
    [
        Failure(type="Particular", message="1 and 2", unbuilt="TypeError: no"),
        Failure(type="Particular", message="1 and 2", payload=b"p\x80damaged"),
        Failure(type="Particular", message="1 and 2", payload=serialize.dumps("no exception")),
    ],
)
def test_what_cannot_be_rebuilt_is_a_remote_error(failure: Failure) -> None:
    error = exception(failure)
    assert type(error) is RemoteError
    assert str(error).startswith("Particular: 1 and 2\n(it is not raised as Particular itself")


def test_a_namesake_of_the_users_is_not_of_the_tree() -> None:
    failure = Failure(type="WorkerLost", message="m", kinds=("WorkerLost", "Exception"))
    assert type(exception(failure)) is RemoteError


def test_status_decides() -> None:
    assert error_of(Result(id="1", status="succeeded")) is None
    assert isinstance(error_of(Result(id="1", status="cancelled")), TaskCancelled)
    assert isinstance(error_of(Result(id="1", status="failed")), RemoteError)


def test_a_value_that_cannot_be_rebuilt() -> None:
    with pytest.raises(ResultError, match=r"task 1 .f. succeeded, but its result cannot be rebuilt"):
        value_of(Result(id="1", function="f", status="succeeded", payload=b"p\x80damaged"))


def test_a_chunk_goes_on_after_a_bad_item() -> None:
    bad = ItemFailure(index=1, failure=serialize.dump_failure(ValueError("bad")))
    result = Result(id="1", status="succeeded", items=3, payload=serialize.dumps([1, None, 3]), bad_items=(bad,))
    items = iter(value_of(result).items())
    assert next(items) == 1
    with pytest.raises(ValueError, match="bad"):
        next(items)
    assert list(items) == [3]


def test_a_task_future_has_all_that_a_future_of_this_python_has() -> None:
    ours = {"_waiters"}  # a property, which looks whether this is a forked child
    assert vars(futures.Future()).keys() - ours <= vars(TaskFuture("t", cast(Connection, None))).keys()
