"""One task, run here in this process: whatever a function does becomes a Done."""

from __future__ import annotations

import asyncio
import linecache
import os
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upon import serialize
from upon.chains import CAUSE
from upon.endpoint.channel import HEADER, Code, Done, Task, frame, from_worker
from upon.endpoint.execution import FULL_FAILURES, PYTHON, Functions, run
from upon.messages import MAX_PAYLOAD
from upon.store.files import FileStore
from upon.store.payloads import Payloads, Where
from upon.store.reference import ARGUMENTS, Reference, encode, is_reference, owner_and_kind

NO_STORE = Payloads(lambda: Where(None))


@pytest.fixture(autouse=True)
def own_lines() -> Iterator[None]:
    yield
    linecache.clearcache()  # a worker shows the lines that travelled, here they stand in the way of pytest


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Done:
    functions = Functions()
    functions.add(Code("c", serialize.dump_function(function), PYTHON))
    return run(Task(0, "c", "f", serialize.pack_call(args, kwargs)), functions, 1, NO_STORE)


def chunk(function: Callable[..., Any], *columns: list[Any]) -> Done:
    functions = Functions()
    functions._loaded["c"] = function
    return run(Task(0, "c", "f", serialize.pack_chunk(columns), len(columns[0])), functions, 1, NO_STORE)


def load_failure(body: bytes, python: str = PYTHON) -> str:
    functions = Functions()
    functions.add(Code("c", body, python))
    done = run(Task(0, "c", "thumbs.make", serialize.pack_call((), {})), functions, 1, NO_STORE)
    assert done.failure is not None
    assert done.failure.type == "FunctionLoadError"
    assert "TaskError" in done.failure.kinds
    return done.failure.message


def test_a_value_comes_back_with_its_preview_and_times() -> None:
    done = call(lambda a, b=0: [a, b], 1, b=2)
    assert serialize.loads(done.payload) == [1, 2]
    assert (done.failure, done.preview, done.started) == (None, "[1, 2]", 1)
    assert done.finished > 1


def test_a_function_and_its_children_know_what_fired_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAUSE, "of the task before")
    functions = Functions()
    functions._loaded["c"] = lambda: os.environ.get(CAUSE)
    for cause, seen in (('["e0","r=1"]', '["e0","r=1"]'), ("", None)):
        done = run(Task(0, "c", "f", serialize.pack_call((), {}), 0, cause), functions, 1, NO_STORE)
        assert serialize.loads(done.payload) == seen


def test_an_exception_comes_with_the_users_frames_only() -> None:
    def inner() -> None:
        raise ValueError("bad sample")

    failure = call(inner).failure
    assert failure is not None
    assert (failure.type, failure.message) == ("ValueError", "bad sample")
    assert isinstance(serialize.loads(failure.payload), ValueError)
    assert "in inner" in failure.traceback
    assert "endpoint/execution.py" not in failure.traceback.replace("test_execution.py", "")
    assert failure.traceback.count("File ") == 1


def test_text_that_utf8_cannot_say_travels() -> None:
    def fail() -> None:
        raise FileNotFoundError("/data/\udcff.h5")

    done = call(fail)
    assert done.failure is not None
    assert done.failure.message == "/data/\\udcff.h5"
    assert from_worker(frame([done])[HEADER:]) == [done]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_the_worker_is_a_failure_that_does_not_end_the_caller(kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind("3")

    failure = call(leave).failure
    assert failure is not None
    assert failure.type == kind.__name__
    assert failure.payload == b""
    assert "must not do" in failure.message


def test_an_exception_that_holds_a_frame_and_cannot_say_its_name() -> None:
    class Odd(Exception):
        def __init__(self) -> None:
            super().__init__(lambda: 0, sys._getframe())

        def __str__(self) -> str:
            raise RuntimeError

    def fail() -> None:
        raise Odd

    failure = call(fail).failure
    assert failure is not None
    assert failure.type == "Odd"
    assert "__str__" in failure.message
    assert "args[1] (TypeError: cannot pickle 'frame' object)" in serialize.loads(failure.payload).__notes__[0]


def test_a_result_that_does_not_serialize() -> None:
    failure = call(lambda: (n for n in range(3))).failure
    assert failure is not None
    assert failure.type == "ResultError"
    assert "generator" in failure.message


def test_a_result_too_large() -> None:
    failure = call(lambda n: b"x" * n, MAX_PAYLOAD).failure
    assert failure is not None
    assert failure.type == "PayloadTooLarge"
    assert f"{MAX_PAYLOAD:,}" in failure.message


@pytest.fixture
def payloads(tmp_path: Path) -> Payloads:
    FileStore.make(tmp_path)
    return Payloads(lambda: Where(tmp_path, 1000))


def run_large(payloads: Payloads, function: Callable[..., Any], *columns: list[Any]) -> Done:
    functions = Functions()
    functions._loaded["c"] = function
    arguments = payloads.dumps([*columns], "t", ARGUMENTS)
    return run(Task(0, "c", "f", arguments, len(columns[0]), "", "t"), functions, 1, payloads)


def test_large_values_and_exceptions_go_through_the_store(payloads: Payloads) -> None:
    def fail(n: int) -> bytes:
        if n % 2:
            raise ValueError(bytes([n]) * 5000)
        return bytes([n]) * 5000

    done = run_large(payloads, fail, [0, 1, 2, 3])
    assert is_reference(done.payload)
    assert payloads.loads(done.payload) == [bytes(5000), None, b"\2" * 5000, None]
    for bad in done.bad_items:
        assert is_reference(bad.failure.payload)
        assert payloads.loads(bad.failure.payload).args == (bytes([bad.index]) * 5000,)
    assert all(owner_and_kind(blob.key) == ("t", "r") for blob in payloads.store().list())


def test_an_item_that_does_not_pickle_leaves_nothing_of_the_others(payloads: Payloads) -> None:
    done = run_large(payloads, lambda n: (k for k in range(n)) if n == 1 else bytes([n]) * 5000, [0, 1, 2])
    assert [bad.failure.type for bad in done.bad_items] == ["ResultError"]
    assert payloads.loads(done.payload) == [bytes(5000), None, b"\2" * 5000]
    assert len(list(payloads.store().list())) == 1


def test_arguments_that_cannot_be_had_are_a_failure_that_names_them(payloads: Payloads) -> None:
    arguments = payloads.dumps([[bytes(5000)]], "t", ARGUMENTS)
    payloads.free(arguments, "t")
    functions = Functions()
    functions._loaded["c"] = len
    failure = run(Task(0, "c", "measure", arguments, 1, "", "t"), functions, 1, payloads).failure
    assert failure is not None
    assert failure.type == "StoreError"
    assert failure.message.startswith("the arguments of measure cannot be had: t.a")
    hostile = Reference("0" * 32, "../../../etc/passwd", 1, 1)
    failure = run(Task(0, "c", "measure", encode(hostile), 1, "", "t"), functions, 1, payloads).failure
    assert failure is not None
    assert "no such can be" in failure.message


def test_a_store_that_goes_away_fails_the_task(payloads: Payloads, tmp_path: Path) -> None:
    def remove(n: int) -> bytes:
        (tmp_path / "store.json").unlink()
        tmp_path.rename(tmp_path.with_name("away"))
        return bytes(5000)

    payloads.store()
    failure = run_large(payloads, remove, [1]).failure
    assert failure is not None
    assert failure.type == "StoreError"
    assert "the result of f: t.r" in failure.message
    assert str(tmp_path) in failure.message


def test_a_module_the_worker_does_not_have() -> None:
    message = load_failure(b"cnosuchmodule\nfunction\n.")
    assert "thumbs.make needs the module 'nosuchmodule'" in message
    assert f"Python {PYTHON}" in message
    assert "install it" in message


def test_a_function_that_its_module_does_not_have() -> None:
    message = load_failure(b"cjson\nno_such_function\n.")
    assert "json" in message
    assert "same version" in message


def test_byte_code_of_another_python_is_not_run() -> None:
    message = load_failure(serialize.dump_function(lambda: 0), "3.99")
    assert "pickled by Python 3.99" in message
    assert PYTHON in message


def test_a_function_by_reference_may_come_from_another_python() -> None:
    functions = Functions()
    functions.add(Code("c", pickle.dumps(len), "3.99"))
    assert (
        serialize.loads(run(Task(0, "c", "f", serialize.pack_call(("abc",), {})), functions, 1, NO_STORE).payload) == 3
    )


def test_what_is_not_a_function_or_no_pickle() -> None:
    assert "not callable" in load_failure(pickle.dumps(3))
    assert "could not be unpickled" in load_failure(b"rubbish")


def test_an_argument_that_does_not_unpickle() -> None:
    functions = Functions()
    functions.add(Code("c", pickle.dumps(len), PYTHON))
    failure = run(Task(0, "c", "f", b"pcnosuchmodule\nthing\n."), functions, 1, NO_STORE).failure
    assert failure is not None
    assert failure.type == "FunctionLoadError"
    assert "an argument of f needs the module 'nosuchmodule'" in failure.message


def test_functions_forget_what_was_not_used_for_longest() -> None:
    functions = Functions(limit=2)
    for name in "ab":
        functions.add(Code(name, pickle.dumps(len), PYTHON))
        functions.get(name, name)
    functions.get("a", "a")
    functions.add(Code("c", pickle.dumps(len), PYTHON))
    functions.get("c", "c")
    assert [name in functions for name in "abc"] == [True, False, True]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(), st.sampled_from([ValueError, StopIteration, SystemExit, KeyboardInterrupt])),
        min_size=1,
        max_size=30,
    )
)
def test_a_chunk_calls_each_item_once_and_a_bad_one_fails_alone(items: list[Any]) -> None:
    calls = []

    def function(index: int, item: Any) -> Any:
        calls.append(index)
        if isinstance(item, type):
            raise item
        return item

    done = chunk(lambda index: function(index, items[index]), list(range(len(items))))
    bad = [index for index, item in enumerate(items) if isinstance(item, type)]
    assert calls == list(range(len(items)))
    assert done.failure is None
    assert serialize.loads(done.payload) == [None if isinstance(item, type) else item for item in items]
    assert [one.index for one in done.bad_items] == bad
    names = ["RuntimeError" if items[index] is StopIteration else items[index].__name__ for index in bad]
    assert [one.failure.type for one in done.bad_items] == names


def test_a_chunk_of_several_columns() -> None:
    done = chunk(lambda a, b: a + b, [1, 2], [10, 20])
    assert serialize.loads(done.payload) == [11, 22]


def test_an_item_whose_value_does_not_serialize_fails_alone() -> None:
    done = chunk(lambda n: sys._getframe() if n == 1 else n, [0, 1, 2])
    assert serialize.loads(done.payload) == [0, None, 2]
    assert [(one.index, one.failure.type) for one in done.bad_items] == [(1, "ResultError")]


def test_many_bad_items_have_their_exceptions_and_the_first_their_tracebacks() -> None:
    def fail(n: int) -> None:
        raise ValueError(n)

    done = chunk(fail, list(range(300)))
    assert [one.failure.message for one in done.bad_items] == [str(n) for n in range(300)]
    assert sum(bool(one.failure.traceback) for one in done.bad_items) == FULL_FAILURES


def test_bad_items_too_large_to_travel() -> None:
    def fail(n: int) -> None:
        raise ValueError("x" * 60_000)

    done = chunk(fail, list(range(400)))
    assert done.failure is not None
    assert done.failure.type == "PayloadTooLarge"
    assert "400 of 400 items failed" in done.failure.message
    assert len(done.failure.message) < 5000


async def doubled(value: int) -> int:
    await asyncio.sleep(0)
    if value == 3:
        raise ValueError("three")
    return 2 * value


def test_async_functions_are_run() -> None:
    assert serialize.loads(call(doubled, 2).payload) == 4
    failure = call(doubled, 3).failure
    assert failure is not None
    assert failure.traceback.count("File ") == 1, "no frame of asyncio"
    assert 'raise ValueError("three")' in failure.traceback
    assert serialize.loads(call(lambda: doubled(4)).payload) == 8


def test_async_functions_are_run_in_chunks() -> None:
    done = chunk(doubled, [1, 2, 3, 4])
    assert serialize.loads(done.payload) == [2, 4, None, 8]
    assert [(bad.index, bad.failure.type) for bad in done.bad_items] == [(2, "ValueError")]


def test_what_an_async_function_left_running_is_ended() -> None:
    ended = []

    async def leaves() -> None:
        async def lasting() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append(1)

        leaves.task = asyncio.create_task(lasting())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    functions = Functions()
    functions._loaded["c"] = leaves
    assert run(Task(0, "c", "f", serialize.pack_call((), {})), functions, 1, NO_STORE).failure is None
    assert ended


def test_generators_are_told_to_return_a_list() -> None:
    def plain() -> Iterator[int]:
        yield 1

    async def asynchronous() -> AsyncIterator[int]:
        yield 1

    for function in (plain, asynchronous):
        failure = call(function).failure
        assert failure is not None
        assert failure.type == "ResultError"
        assert "return a list" in failure.message


def failing_module(folder: Path, line: int) -> Code:
    """Return the code of a function whose file is not there any more."""
    file = folder / "measure.py"
    file.write_text("\n" * (line - 2) + "def fail(x):\n    raise ValueError(x)  # the line\n")
    variables: dict[str, Any] = {"__name__": "measure"}
    exec(compile(file.read_text(), str(file), "exec"), variables)
    code = Code(str(line), serialize.dump_function(variables["fail"]), PYTHON)
    file.unlink()
    linecache.clearcache()
    return code


def test_a_traceback_shows_lines_of_a_file_that_is_not_here(tmp_path: Path) -> None:
    functions = Functions()
    for line in (10, 20):
        functions.add(failing_module(tmp_path, line))
    for line in (10, 20, 10, 10):
        failure = run(Task(0, str(line), "f", serialize.pack_call((1,), {})), functions, 1, NO_STORE).failure
        assert failure is not None
        assert f'File "{tmp_path / "measure.py"}", line {line}, in fail' in failure.traceback
        assert "raise ValueError(x)  # the line" in failure.traceback


def test_how_long_it_ran_is_not_told_by_the_wall_clock() -> None:
    """It is told from the beginning on, whatever that was: the wall clock may be set while a function runs."""
    for done in (call(lambda: 1), call(lambda: 1 / 0), chunk(lambda n: n, [1, 2])):
        assert 1 <= done.finished < 60_000_000_000
