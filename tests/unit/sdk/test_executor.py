from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from tests.systems import wait_for
from tests.unit.sdk.small_service import SmallService
from upon import Executor, api, pickling
from upon.errors import FunctionError, FunctionNotFound, InputError, RemoteTraceback, SiteNotFound
from upon.messages import Retry
from upon.sdk import executor as executor_module
from upon.sdk import functions, modules
from upon.sdk import future as future_module
from upon.sdk.functions import code_of
from upon.sdk.future import TaskFuture


def test_values_arrive(executor: Executor) -> None:
    assert executor.submit(pow, 2, 10).result(30) == 1024
    assert executor.submit(lambda x, *, y: (x, y), 1, y={2}).result(30) == (1, {2})


def test_it_is_a_concurrent_futures_executor(executor: Executor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)
    sent = [executor.submit(pow, n, 2) for n in range(100)]
    done, not_done = concurrent.futures.wait(sent, timeout=30)
    assert len(done) == 100
    assert not not_done
    assert [f.result() for f in sent] == [n * n for n in range(100)]


def test_many_submits_share_frames_and_one_registration(executor: Executor, service: SmallService) -> None:
    sent = [executor.submit(pow, n, 2) for n in range(3000)]
    assert [f.result(30) for f in sent] == [n * n for n in range(3000)]
    assert sum(isinstance(f, api.Register) for f in service.frames) == 1
    assert sum(isinstance(f, api.Submit) for f in service.frames) < 1500


def test_an_exception_is_itself_with_the_remote_traceback(executor: Executor) -> None:
    error = executor.submit(int, "x").exception(30)
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "Traceback: there" in str(error.__cause__)


def test_map_keeps_order_over_chunks(executor: Executor) -> None:
    assert list(executor.map(lambda x: x + 1, range(10_000), chunksize=300)) == list(range(1, 10_001))
    assert list(executor.map(pow, [1, 2, 3], [2, 2])) == [1, 4]
    assert list(executor.map(lambda x: x, [])) == []


def test_one_bad_item_raises_at_its_position_and_the_next_can_be_asked_for(executor: Executor) -> None:
    found = executor.map(lambda x: 10 // x, [2, 1, 0, 5], chunksize=4)
    assert [next(found), next(found)] == [5, 10]
    with pytest.raises(ZeroDivisionError) as caught:
        next(found)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert next(found) == 2
    assert next(found, "end") == "end"


@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_has_at_least_one_item(executor: Executor, size: int) -> None:
    with pytest.raises(ValueError, match=f"chunksize: must be 1 or more, not {size}"):
        executor.map(pow, [1], [1], chunksize=size)


def test_map_times_out(executor: Executor, service: SmallService) -> None:
    service.run = False
    with pytest.raises(TimeoutError):
        next(executor.map(pow, [1], [1], timeout=0.2))
    wait_for(lambda: service.cancelled, "what is left is cancelled", 30)


def test_cancel_asks_the_site_and_wakes_who_waits(executor: Executor, service: SmallService) -> None:
    service.run = False
    future = executor.submit(pow, 2, 2)
    wait_for(lambda: service.received[future.id], "the task has arrived", 30)
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    assert concurrent.futures.wait([future], timeout=30).done == {future}
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(30)
    wait_for(lambda: service.cancelled == [future.id], "the cancellation has arrived", 30)


def test_a_done_future_is_not_cancelled(executor: Executor) -> None:
    future = executor.submit(pow, 2, 2)
    assert future.result(30) == 4
    assert not future.cancel()


def test_options_travel_with_each_task(executor: Executor, service: SmallService) -> None:
    executor.options(timeout="5s", attempts=3).submit(pow, 2, 2).result(30)
    (submit,) = [f for f in service.frames if isinstance(f, api.Submit)]
    assert submit.invocations[0].timeout == 5
    assert submit.invocations[0].retry == Retry(attempts=3, on=("Exception",))
    for wrong in ({"timeout": 0}, {"timeout": "soon"}, {"attempts": 0}, {"attempts": 2, "retry": Retry()}):
        with pytest.raises(InputError):
            executor.options(**wrong)  # type: ignore[arg-type]


def test_what_the_service_refuses_fails_the_future(executor: Executor, service: SmallService) -> None:
    service.refuse = lambda frame: SiteNotFound("no site 'local'") if isinstance(frame, api.Submit) else None
    with pytest.raises(SiteNotFound, match="no site 'local'"):
        executor.submit(pow, 2, 2).result(30)


def test_unserializable_arguments_and_functions_are_named(executor: Executor) -> None:
    lock = threading.Lock()
    with pytest.raises(InputError, match=r"argument 2 of pow .a _thread.lock. cannot be serialized"):
        executor.submit(pow, 2, lock)
    with pytest.raises(InputError, match="argument exp of pow"):
        executor.submit(pow, 2, exp=lock)
    with pytest.raises(FunctionError, match=r"the variable 'lock', a _thread.lock"):
        executor.submit(lambda: lock)


def test_after_shutdown_nothing_is_taken(home: Path) -> None:
    executor = Executor(home=home)
    future = executor.submit(pow, 2, 3)
    executor.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 3)
    executor.shutdown()


def test_running_is_true_once_the_site_says_so(executor: Executor, service: SmallService) -> None:
    service.run = False
    first, second = executor.submit(pow, 2, 2), executor.submit(pow, 2, 3)
    wait_for(lambda: len(service.asked) == 2, "the tasks have arrived", 30)
    assert not first.running()
    service.begin(first.id)
    wait_for(first.running, "the news is here", 30)
    assert not second.running()
    assert first.cancel()
    assert (first.running(), first.cancelled(), second.cancelled()) == (False, True, False)
    service.begin(second.id)
    service.end(second.id)
    assert second.result(30) == 8
    assert not second.running()


def test_shutdown_can_cancel_what_has_not_begun(home: Path, service: SmallService) -> None:
    service.run = False
    executor = Executor(home=home)
    futures = [executor.submit(pow, 2, n) for n in range(10)]
    wait_for(lambda: len(service.asked) == 10, "the tasks have arrived", 30)
    service.begun.add(futures[0].id)  # a moment ago: nobody here knows
    service.begin(futures[1].id)
    shutdown = threading.Thread(target=lambda: executor.shutdown(cancel_futures=True))
    shutdown.start()
    wait_for(lambda: all(f.cancelled() for f in futures[2:]), "what had not begun is cancelled", 30)
    assert not futures[0].done()
    assert not futures[1].done()
    service.end(futures[0].id)
    service.end(futures[1].id)
    shutdown.join(30)
    assert [f.result(0) for f in futures[:2]] == [1, 2]
    assert service.cancelled == [], "nothing that runs was to be killed"


def test_shutdown_does_not_wait_for_a_site_that_does_not_say_what_has_begun(
    home: Path, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "ANSWER", 0.2)
    service.run = service.answers_spared = False
    executor = Executor(home=home)
    futures = [executor.submit(pow, 2, n) for n in range(10)]
    executor.shutdown(cancel_futures=True)
    assert all(f.cancelled() for f in futures)


def test_what_was_not_even_sent_is_cancelled_by_a_shutdown(home: Path, service: SmallService) -> None:
    service.acknowledge = False  # so the function is not known to be registered, and nothing is submitted
    executor = Executor(home=home)
    future = executor.submit(lambda: 1)
    executor.shutdown(wait=False, cancel_futures=True)
    assert futures_wait(future)
    assert future.cancelled()
    assert not service.received


def test_a_registered_function_runs_by_its_name(executor: Executor, service: SmallService) -> None:
    for name, function in (("double", lambda x: 2 * x), ("half@2", lambda x: x / 2)):
        service.codes[name] = code_of(function)
    service.refuse = lambda frame: (
        FunctionNotFound("function 'none' is not registered")
        if isinstance(frame, api.Submit) and frame.invocations[0].function == "none"
        else None
    )
    sent = [executor.submit(name, n) for n in range(100) for name in ("double", "none", "half@2")]
    for n in range(100):
        assert sent[3 * n].result(30) == 2 * n
        assert isinstance(sent[3 * n + 1].exception(30), FunctionNotFound)
        assert sent[3 * n + 2].result(30) == n / 2
    assert list(executor.map("double", range(5), chunksize=2)) == [0, 2, 4, 6, 8]
    assert not any(isinstance(frame, api.Register) for frame in service.frames)


class Box:
    pass


def test_neither_arguments_nor_results_nor_futures_are_kept(executor: Executor) -> None:
    argument = Box()
    future = executor.submit(lambda box: box, argument)
    result = future.result(30)
    seen = [weakref.ref(one) for one in (argument, future, result)]
    del argument, future, result
    wait_for(lambda: gc.collect() >= 0 and not any(one() for one in seen), "they are gone", 30)
    for value in executor.map(lambda n: Box(), range(6), chunksize=3):
        kept = weakref.ref(value)
        del value
        assert kept() is None


def interrupted(home: Path, service: SmallService, tasks: int, **options: bool) -> list[TaskFuture[int]]:
    """Submit some tasks, interrupt the block once they have arrived; return their futures."""
    futures: list[TaskFuture[int]] = []

    def block() -> None:
        with Executor(home=home, **options) as executor:  # type: ignore[arg-type]
            futures.extend(executor.submit(pow, 2, n) for n in range(tasks))
            wait_for(lambda: len(service.asked) == tasks, "the tasks have arrived", 30)
            raise KeyboardInterrupt

    service.run = False
    with pytest.raises(KeyboardInterrupt):
        block()
    return futures


def test_ctrl_c_cancels_what_is_not_done_and_says_so(
    home: Path, service: SmallService, capsys: pytest.CaptureFixture[str]
) -> None:
    futures = interrupted(home, service, 3)
    assert all(f.cancelled() for f in futures)
    assert sorted(service.cancelled) == sorted(f.id for f in futures)
    said = capsys.readouterr().err
    assert said.startswith("upon: interrupted; cancelled 3 tasks at site local: Executor(keep=True)")
    assert said.count("\n") == 1


def test_ctrl_c_lets_run_on_what_is_to_be_kept(
    home: Path, service: SmallService, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(home, service, 1, keep=True)
    assert "left running: 1 task at site local" in capsys.readouterr().err
    assert service.cancelled == []


SCRIPT = """
import os, signal, sys, threading
from upon import Executor
executor = Executor(home=sys.argv[1])
future = executor.submit(pow, 2, 2)
print("sent", flush=True)
future.result()
"""


@pytest.mark.parametrize("block", [True, False], ids=["in a with block", "without one"])
def test_a_script_that_ctrl_c_ends_cancels_its_tasks(home: Path, service: SmallService, block: bool) -> None:
    service.run = False
    text = SCRIPT if not block else SCRIPT.replace("future.result()", "with executor: pass")
    script = subprocess.Popen(
        [sys.executable, "-c", text, str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: service.asked, "the task has arrived", 60)
    script.send_signal(signal.SIGINT)
    _, said = script.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert "upon: interrupted; cancelled 1 task at site local" in said
    assert service.cancelled == list(service.received)


def futures_wait(future: concurrent.futures.Future[int]) -> bool:
    return future in concurrent.futures.wait([future], timeout=30).done


def test_shutdown_without_wait_lets_results_arrive(home: Path, service: SmallService) -> None:
    service.push = False
    executor = Executor(home=home)
    future = executor.submit(pow, 2, 3)
    executor.shutdown(wait=False)
    assert not future.done()
    wait_for(lambda: future.id in service.results, "it has run", 30)
    service.finish()
    assert future.result(30) == 8


def test_a_forked_child_has_its_own_connection(executor: Executor) -> None:
    executor.submit(pow, 2, 2).result(30)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(executor.submit(pow, 3, 2).result(30)).encode())
        finally:
            os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 10) == b"9"
    os.close(read)
    assert executor.submit(pow, 4, 2).result(30) == 16


@pytest.mark.parametrize("held", [functions._lock, modules._lock, pickling._lock, future_module._lock])
def test_a_child_forked_while_another_thread_held_a_lock_goes_on(executor: Executor, held: Any) -> None:
    executor.submit(pow, 2, 2).result(30)
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with held:
            taken.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(30)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)  # kills a child that waits for ever
        os._exit(executor.submit(lambda: 9).result(20))
    release.set()
    thread.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_closed_connection_ends_after_what_was_asked_before(executor: Executor, service: SmallService) -> None:
    connection = executor._connection
    executor.submit(pow, 2, 2).result(30)
    connection._closing = True
    connection._intake.append(lambda ledger: None)  # by a thread that comes between the look there and this one
    connection._end_if_idle()
    assert not connection._idle.is_set()
    connection._closing = False


def test_a_callback_may_submit(executor: Executor) -> None:
    second: concurrent.futures.Future[concurrent.futures.Future[int]] = concurrent.futures.Future()
    executor.submit(pow, 2, 2).add_done_callback(lambda f: second.set_result(executor.submit(pow, f.result(), 2)))
    assert second.result(30).result(30) == 16


def test_after_the_with_block_every_future_is_done(home: Path) -> None:
    for _ in range(30):
        with Executor(home=home) as executor:
            futures = [executor.submit(pow, n, 1) for n in range(50)]
        assert all(future.done() for future in futures)
        assert not executor._connection.is_usable, "nothing goes on in the background"
