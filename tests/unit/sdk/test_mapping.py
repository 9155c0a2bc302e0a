"""Maps: sizes of chunks, and what is consumed, sent and dropped when. SmallService runs all that it gets at once."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from tests.systems import wait_for
from tests.unit.sdk.small_service import SmallService
from upon import Executor, api
from upon.errors import InputError, ServiceError
from upon.sdk.mapping import BYTES, GROWTH, LEAST, WORK, Map, Rows, Sizes


def simulated(each: float, items: int, workers: int = 4, weight: int = 10) -> list[int]:
    """Return the sizes that chunks of a map have whose items all take `each` s, `2 * workers` always under way."""
    sizes, left, found, under_way = Sizes(workers), items, list[int](), list[int]()
    while left:
        size = min(left, sizes.next(left))
        left -= size
        found.append(size)
        under_way.append(size)
        if len(under_way) > 2 * workers:
            done = under_way.pop(0)
            sizes.saw(done, done * each, done * weight)
    return found


class TestSizes:
    def test_chunks_are_of_so_much_work_once_that_is_known(self) -> None:
        sizes = Sizes(4)
        assert sizes.next(None) == 1
        for _ in range(20):
            size = sizes.next(None)
            sizes.saw(size, size * 0.001, size * 10)
        assert sizes.next(None) == pytest.approx(WORK / 0.001, rel=0.01)

    @pytest.mark.parametrize("each", [1e-7, 1e-4, 0.01, 1.0, 60.0])
    @pytest.mark.parametrize("items", [1, 3, 8, 1000, 200_000])
    def test_no_worker_is_without_a_chunk_that_could_have_one(self, each: float, items: int) -> None:
        found = simulated(each, items)
        assert sum(found) == items
        assert len(found) >= min(items, 4)
        assert max(found) * each <= max(WORK, each) * 1.01
        if items * each > 10 * WORK:
            assert found[-1] * each <= max(LEAST, each), "the last ones are small, that all end together"

    def test_few_chunks_for_many_short_items(self) -> None:
        assert len(simulated(1e-7, 1_000_000)) < 150

    def test_large_items_make_small_chunks(self) -> None:
        sizes = Sizes(4)
        for _ in range(10):
            size = sizes.next(None)
            sizes.saw(size, size * 1e-6, size * 100_000)
        assert sizes.next(None) == BYTES // 100_000

    def test_it_grows_by_steps(self) -> None:
        sizes = Sizes(4)
        sizes.saw(1, 0.0, 0)
        assert sizes.next(None) == GROWTH


def test_rows_are_as_many_as_the_shortest_has() -> None:
    rows = Rows((range(5), "abcd"), collected=True)
    assert rows.left == 4
    assert rows.cut(3) == [[0, 1, 2], ["a", "b", "c"]]
    assert rows.cut(3) == [[3], ["d"]]
    assert rows.cut(3) is None
    assert Rows((itertools.count(),), collected=False).cut(2) == [[0, 1]]


def chunk_sizes(service: SmallService) -> list[int]:
    return [one.items for frame in service.frames if isinstance(frame, api.Submit) for one in frame.invocations]


def test_a_chunk_size_is_found(executor: Executor, service: SmallService) -> None:
    assert list(executor.map(abs, range(-100_000, 0))) == list(range(100_000, 0, -1))
    found = chunk_sizes(service)
    assert found[0] == 1
    assert max(found) > 1000
    assert sum(found) == 100_000


def test_an_explicit_one_is_kept(executor: Executor, service: SmallService) -> None:
    assert list(executor.map(abs, range(100), chunksize=30)) == list(range(100))
    assert list(executor.map(abs, range(100), chunksize=30, buffersize=60)) == list(range(100))
    assert chunk_sizes(service) == [30, 30, 30, 10] * 2


@pytest.mark.parametrize("buffersize", [1, 2, 7, 1000])
@pytest.mark.parametrize("chunksize", [None, 1, 5])
def test_no_more_is_consumed_than_the_buffer_takes(
    executor: Executor, service: SmallService, buffersize: int, chunksize: int | None
) -> None:
    consumed = taken = most = 0

    def numbers() -> Iterator[int]:
        nonlocal consumed, most
        while True:
            consumed += 1
            most = max(most, consumed - taken)
            yield consumed - 1

    for value in executor.map(abs, numbers(), buffersize=buffersize, chunksize=chunksize):
        assert value == taken
        taken += 1
        if taken == 300:
            break
    assert most <= buffersize + (chunksize or 300)  # those of the chunk that is being handed out count until its end
    assert most >= min(buffersize, 2)


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_takes_at_least_one_item(executor: Executor, size: int) -> None:
    with pytest.raises(ValueError, match=f"buffersize: must be 1 or more, not {size}"):
        executor.map(pow, [1], [1], buffersize=size)


def test_an_iterable_that_raises(executor: Executor) -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)
        raise OSError("no more")

    for buffersize in (None, 1, 10):
        with pytest.raises(OSError, match="no more"):
            list(executor.map(abs, numbers(), buffersize=buffersize))


def test_an_item_that_cannot_be_serialized_is_alone(executor: Executor) -> None:
    items = [*range(100), threading.Lock(), *range(100)]
    found = executor.map(lambda x: x, items)
    good = [next(found) for _ in range(100)]
    with pytest.raises(InputError, match="cannot be serialized"):
        next(found)
    assert [*good, *found] == [*range(100)] * 2
    with pytest.raises(InputError, match="item 0 of iterable 1"):
        executor.map(lambda x: x, items[100:], chunksize=5)


def test_a_map_that_nobody_asks_runs_to_its_end(home: Path, service: SmallService) -> None:
    with Executor(home=home) as executor:
        executor.map(abs, range(50_000))
    assert sum(chunk_sizes(service)) == 50_000
    executor = Executor(home=home)
    values = executor.map(abs, range(50_000))
    executor.shutdown(wait=False)
    assert sum(values) == sum(range(50_000))


def test_what_is_consumed_on_the_way_ends_with_the_executor(home: Path) -> None:
    with Executor(home=home) as executor:
        found = executor.map(abs, itertools.count(), buffersize=4)
        assert next(found) == 0
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(found)


def test_a_shutdown_may_cancel_what_was_not_sent(home: Path, service: SmallService) -> None:
    service.run = False
    executor = Executor(home=home)
    found = executor.map(abs, range(50_000))
    wait_for(lambda: service.asked, "some have arrived", 30)
    executor.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        list(found)
    assert sum(chunk_sizes(service)) < 100


def test_a_dropped_iterator_sends_no_more(executor: Executor, service: SmallService) -> None:
    found = executor.map(abs, range(1_000_000_0))
    assert next(found) == 0
    del found
    assert executor.submit(abs, -1).result(30) == 1
    assert sum(chunk_sizes(service)) < 10_000_000


SCRIPT = """
import sys
from upon import Executor
Executor(home=sys.argv[1]).map(abs, range(50_000))
"""


def test_a_script_that_does_not_wait_has_handed_all_over(home: Path, service: SmallService) -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, str(home)], capture_output=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert sum(chunk_sizes(service)) == 50_000


def test_a_forked_child_is_told_that_the_map_is_its_parents(executor: Executor) -> None:
    for options in ({}, {"buffersize": 5}, {"chunksize": 2}):
        found = executor.map(abs, range(20), **options)  # type: ignore[arg-type]
        child = os.fork()
        if child == 0:
            try:
                next(found)
            except ServiceError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert list(found) == list(range(20))


def test_an_executor_does_not_end_between_two_chunks(home: Path, service: SmallService, monkeypatch: Any) -> None:
    """A chunk that is done has left what is under way before the next one is sent: however long that takes."""
    one_done = Map._one_done

    def late(self: Map, *done: Any) -> None:
        time.sleep(0.05)
        one_done(self, *done)

    monkeypatch.setattr(Map, "_one_done", late)
    with Executor(home=home) as executor:
        executor.map(abs, range(5_000))
        wait_for(lambda: not executor._unfinished(), "results that are here and not told yet", 30)
    assert sum(chunk_sizes(service)) == 5_000
