from __future__ import annotations

import concurrent.futures
import os
import threading
from pathlib import Path

import pytest

from tests.systems import wait_for
from tests.unit.sdk.small_service import SmallService
from upon import Executor, api
from upon.errors import FunctionError, InputError, RemoteTraceback, SiteNotFound
from upon.messages import Retry


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
    executor.options(timeout=5, attempts=3).submit(pow, 2, 2).result(30)
    (submit,) = [f for f in service.frames if isinstance(f, api.Submit)]
    assert submit.invocations[0].timeout == 5
    assert submit.invocations[0].retry == Retry(attempts=3, on=("Exception",))
    for wrong in ({"timeout": 0}, {"attempts": 0}, {"attempts": 2, "retry": Retry()}):
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


def test_shutdown_can_cancel_what_is_left(home: Path, service: SmallService) -> None:
    service.run = False
    executor = Executor(home=home)
    futures = [executor.submit(pow, 2, n) for n in range(10)]
    executor.shutdown(cancel_futures=True)
    assert all(f.cancelled() for f in futures)


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
