"""AsyncClient against the whole, real system; with tests/acceptance/test_docs.py, which runs the page's blocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.systems import System, wait_for
from upon import AsyncClient, Client, Event
from upon.errors import FunctionNotFound, TaskTimeout
from upon.sdk.future import TaskFuture


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(90):
            return await work

    return asyncio.run(bounded())


def test_no_call_blocks_the_loop(system: System) -> None:
    async def main() -> tuple[list[int], int]:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with AsyncClient(system.home) as client:
            ticking = asyncio.create_task(tick())
            futures = await asyncio.gather(*(client.submit(pow, 2, n) for n in range(100)))
            values = list(await asyncio.gather(*futures))
            ticking.cancel()
        return values, turns

    values, turns = run(main())
    assert values == [2**n for n in range(100)]
    assert turns > 100


def test_errors_are_those_of_the_others(system: System) -> None:
    async def main() -> None:
        async with AsyncClient(system.home) as client:
            with pytest.raises(FunctionNotFound):
                await client.invoke("async.nothing")
            with pytest.raises(ZeroDivisionError):
                await (await client.submit(divmod, 1, 0))
            with pytest.raises(TaskTimeout):
                await (await client.options(timeout=0.2).submit(time.sleep, 600))
            slow = await client.submit(time.sleep, 600)
            with pytest.raises(TimeoutError):
                await anext(client.as_completed([slow], timeout=0.1))
            await client.cancel(slow)
            assert isinstance(await asyncio.to_thread(slow.exception, 60), Exception)

    run(main())


def test_a_map_goes_on_after_a_bad_item_and_after_impatience(system: System) -> None:
    def slowly(x: int) -> float:
        time.sleep(0.3)
        return 10 / x

    async def main() -> list[object]:
        found: list[object] = []
        async with AsyncClient(system.home) as client:
            values = client.map(slowly, [1, 0, 5])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(values), 0.01)
            while True:
                try:
                    found.append(await anext(values))
                except ZeroDivisionError:
                    found.append("bad")
                except StopAsyncIteration:
                    return found

    assert run(main()) == [10, "bad", 2]


def test_a_cancelled_block_cancels_what_is_not_done(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    futures: list[TaskFuture[None]] = []

    async def main(wait_inside: bool) -> None:
        async with AsyncClient(system.home) as client:
            futures.append(await client.submit(time.sleep, 600))
            if wait_inside:
                await asyncio.Event().wait()

    async def cancelled(wait_inside: bool) -> None:
        working = asyncio.create_task(main(wait_inside))
        await asyncio.to_thread(wait_for, lambda: futures, "it is submitted")
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    for wait_inside in (True, False):
        futures.clear()
        run(cancelled(wait_inside))
        assert futures[0].cancelled()
        with Client(home=system.home) as client:
            wait_for(lambda: client.task(futures[0]).status == "cancelled", "it is cancelled at the site")
    assert "cancelled 1 task at site local" in capsys.readouterr().err


def test_events_are_published_and_watched(system: System) -> None:
    async def main() -> object:
        async with AsyncClient(system.home) as client, client.watch(events=True) as changes:
            await client.publish(Event(type="async.test", source="/test", subject="S"))
            async for change in changes:
                if getattr(change, "event", {}).get("type") == "async.test":
                    return change
        return None

    assert run(main()) is not None
