"""An Executor where people use one: forked children, event loops, scripts that die; the whole, real system."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.systems import System, wait_for
from upon import Client, Executor
from upon.errors import InputError, WorkerLost
from upon.sdk.outcome import Chunk


def in_a_fork(work: Callable[[], object]) -> str:
    """Run `work` in a forked child; return what it returned, or what it raised."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = repr(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as end:
        said = end.read().decode()
    os.waitpid(child, 0)
    return said


def slowly(value: object) -> object:
    """Return `value`, late enough that somebody waits for it."""
    time.sleep(0.2)
    return value


class TestAfterAFork:
    @pytest.mark.parametrize(
        "wait",
        [
            lambda f: f.result(),
            lambda f: f.exception(),
            lambda f: concurrent.futures.wait([f]),
            lambda f: next(concurrent.futures.as_completed([f])),
            lambda f: f.add_done_callback(print),
            lambda f: asyncio.run(awaited(f)),
        ],
        ids=["result", "exception", "wait", "as_completed", "callback", "await"],
    )
    def test_who_waits_for_the_parents_future_is_told(self, executor: Executor, wait: Callable[..., object]) -> None:
        future = executor.submit(time.sleep, 600)
        said = in_a_fork(lambda: wait(future))
        assert said.startswith(f"ServiceError: the result of task {future.id} arrives in the process that submitted it")
        assert future.cancel()

    def test_a_childs_cancel_does_nothing(self, executor: Executor) -> None:
        future = executor.submit(slowly, 5)
        assert in_a_fork(future.cancel) == "False"
        assert future.result(60) == 5

    def test_both_get_their_own_results(self, executor: Executor) -> None:
        mine = [executor.submit(pow, n, 2) for n in range(100)]
        said = in_a_fork(lambda: sum(f.result(60) for f in [executor.submit(pow, n, 3) for n in range(100)]))
        assert said == str(sum(n**3 for n in range(100)))
        assert [f.result(60) for f in mine] == [n * n for n in range(100)]
        done = mine[7]
        assert in_a_fork(lambda: (done.result(), done.done())) == "(49, True)"

    def test_a_childs_with_block_does_not_wait_for_the_parent(self, executor: Executor) -> None:
        future = executor.submit(time.sleep, 600)
        assert in_a_fork(executor.shutdown) == "None"
        assert future.cancel()

    def test_the_parents_result_can_be_had_by_its_id(self, executor: Executor, client: Client) -> None:
        future = executor.submit(slowly, {5})
        assert in_a_fork(lambda: client.wait(future.id, 60)) == "{5}"

    def test_the_parents_watch_ends(self, client: Client) -> None:
        with client.watch(tasks=True) as changes:
            assert in_a_fork(lambda: next(changes)).startswith("ServiceError: what is watched arrives in the process")


async def awaited(future: concurrent.futures.Future[object]) -> object:
    return await asyncio.wrap_future(future)


class TestInAnEventLoop:
    def test_a_future_can_be_awaited(self, executor: Executor) -> None:
        async def main() -> list[int]:
            first = await executor.submit(pow, 2, 3)
            assert await asyncio.wrap_future(executor.submit(pow, 2, 5)) == 32
            with pytest.raises(ZeroDivisionError):
                await executor.submit(divmod, 1, 0)
            return [first, *await asyncio.gather(*(executor.submit(pow, 2, n) for n in range(20)))]

        assert asyncio.run(main()) == [8, *(2**n for n in range(20))]

    def test_who_stops_waiting_cancels_the_task(self, executor: Executor, client: Client) -> None:
        future = executor.submit(time.sleep, 600)

        async def main() -> None:
            async with asyncio.timeout(0.2):
                await future

        with pytest.raises(TimeoutError):
            asyncio.run(main())
        assert future.cancelled()
        wait_for(lambda: client.task(future).status == "cancelled", "it is cancelled at the site")

    def test_it_is_an_executor_for_the_loop(self, executor: Executor) -> None:
        async def main() -> int:
            return await asyncio.get_running_loop().run_in_executor(executor, pow, 2, 7)

        assert asyncio.run(main()) == 128


DIES = """
import os, sys, time
from upon import Executor
executor = Executor(home=sys.argv[1], group=sys.argv[2])
for n in range(20):
    executor.submit(lambda n: time.sleep(0.05) or {n}, n)
executor.map(str, range(10), chunksize=5)
executor.submit(divmod, 1, 0)
executor.submit(pow, 1, 1).result()  # what was submitted before is in Kafka
os._exit(9)
"""


class TestAGroup:
    def test_another_program_gets_the_results_of_one_that_died(self, system: System, client: Client) -> None:
        ran = subprocess.run([sys.executable, "-c", DIES, str(system.home), "night 17"], timeout=60, check=False)
        assert ran.returncode == 9
        futures = client.futures("night 17")
        outcomes = [future.exception(60) or future.result() for future in concurrent.futures.as_completed(futures, 60)]
        assert sorted(one.pop() for one in outcomes if isinstance(one, set)) == list(range(20))
        chunks = [list(one.items()) for one in outcomes if isinstance(one, Chunk)]
        assert sorted(value for chunk in chunks for value in chunk) == [str(n) for n in range(10)]
        assert [type(one) for one in outcomes if isinstance(one, Exception)] == [ZeroDivisionError]
        assert len(outcomes) == 24
        again = client.futures("night 17")
        assert len(concurrent.futures.wait(again, 60).done) == 24, "as often as one asks"
        assert client.futures("night 18") == []

    def test_what_is_not_done_can_be_cancelled(self, system: System, client: Client) -> None:
        with Executor(home=system.home) as executor:
            theirs = executor.submit(time.sleep, 600)
            (ours,) = wait_for(lambda: client.futures(executor.group), "it is accepted")
            assert ours.id == theirs.id
            assert ours.cancel()
            assert isinstance(theirs.exception(60), Exception)

    @pytest.mark.parametrize("name", ["x" * 201, "a\nb"])
    def test_a_name_that_cannot_be_one(self, system: System, name: str) -> None:
        with pytest.raises(InputError, match="printable characters"):
            Executor(home=system.home, group=name)


class TestAMap:
    def test_an_endless_one_uses_all_workers(self, executor: Executor) -> None:
        def slowly(n: int) -> tuple[int, int]:
            time.sleep(0.02)
            return n, os.getpid()

        found = executor.map(slowly, itertools.count(), buffersize=40)
        some = list(itertools.islice(found, 100))
        assert [n for n, _ in some] == list(range(100))
        assert len({pid for _, pid in some}) > 1

    def test_its_chunks_follow_from_how_long_items_take(self, system: System, client: Client) -> None:
        with Executor(home=system.home) as executor:
            assert list(executor.map(time.sleep, [0.01] * 200)) == [None] * 200
            chunks = [task.items for task in client.tasks(group=executor.group, limit=1000)]
        assert sum(chunks) == 200
        assert max(chunks) <= 20
        assert len(chunks) < 100

    def test_it_ends_in_time_or_says_so(self, executor: Executor) -> None:
        found = executor.map(time.sleep, [0, 600], timeout=2)
        assert next(found) is None
        with pytest.raises(TimeoutError):
            next(found)

    def test_an_item_that_ends_its_worker_takes_its_chunk_only(self, executor: Executor) -> None:
        def work(n: int) -> int:
            return os._exit(3) if n == 4 else n

        found = executor.map(work, range(9), chunksize=3)
        outcomes = []
        for _ in range(9):
            try:
                outcomes.append(next(found))
            except WorkerLost:
                outcomes.append(-1)
        assert outcomes == [0, 1, 2, -1, -1, -1, 6, 7, 8]


def submits(home: str, depth: int, folder: str = "", others: int = 0) -> int:
    """Submit itself to its own site, `depth` times one in the other, and wait; begin when as many are in `folder`."""
    import os
    import time

    from upon import Executor
    from upon.sdk import nested

    nested.AFTER = 0.5
    if not depth:
        return 0
    if folder:
        open(f"{folder}/{os.getpid()}", "w").close()
        while len(os.listdir(folder)) < others:
            time.sleep(0.01)
    with Executor(home=home) as executor:
        return 1 + executor.submit(submits, home, depth - 1).result()


class TestNested:
    def test_as_deep_as_there_are_workers(self, system: System, executor: Executor, client: Client) -> None:
        (site,) = client.sites()
        assert executor.submit(submits, str(system.home), site.slots - 1).result(60) == site.slots - 1

    def test_deeper_is_said_while_it_waits(
        self, system: System, executor: Executor, client: Client, tmp_path: Path
    ) -> None:
        (site,) = client.sites()
        home, folder = str(system.home), str(tmp_path)
        futures = [executor.submit(submits, home, 1, folder, site.slots) for _ in range(site.slots)]

        def said() -> bool:
            return all("submitted to its own site" in client.output(future.id).text for future in futures)

        try:
            wait_for(lambda: all(future.running() for future in futures), "each of them is accepted, and runs")
            wait_for(said, "each of them says that it waits for a worker")
            assert futures[0].cancel()
            assert [future.result(60) for future in futures[1:]] == [1] * (site.slots - 1), (
                "a worker is enough to go on"
            )
        finally:  # else they wait for each other, and the executor for them
            for future in futures:
                future.cancel()
