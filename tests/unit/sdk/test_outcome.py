from __future__ import annotations

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
from upon.sdk.outcome import error_of, exception, value_of


class Particular(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


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
        serialize.dump_failure(Particular(1, 2)),
        Failure(type="Particular", message="1 and 2", payload=b"p\x80damaged"),
        Failure(type="Particular", message="1 and 2", payload=serialize.dumps("no exception")),
    ],
)
def test_what_cannot_be_rebuilt_is_a_remote_error(failure: Failure) -> None:
    error = exception(failure)
    assert type(error) is RemoteError
    assert str(error) == "Particular: 1 and 2"


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
