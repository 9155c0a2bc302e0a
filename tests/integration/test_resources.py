"""What tasks are promised on a node, by real processes: cores, memory, accelerators, limits."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dispatching import Fabric, dispatcher, fabric
from tests.integration.test_fabric import manager_process, registered, stop
from upon.messages import Resources, Result
from upon.serialize import loads, pack_call
from upon.topics import Topics


@asynccontextmanager
async def site(kafka: str, topics: Topics, folder: Path) -> AsyncIterator[Fabric]:
    async with fabric(kafka, topics.prefix, folder) as f, dispatcher(f.settings) as address:
        manager = manager_process(f.settings, address)
        try:
            yield f
        finally:
            stop(manager)


@pytest.fixture(autouse=True)
def offer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPON_ACCELERATORS", "g0,g1")
    monkeypatch.setenv("UPON_MEMORY", "2GB")


async def run(
    f: Fabric, function: Callable[..., Any], *ids: str, args: tuple[Any, ...] = (), **more: Any
) -> list[Result]:
    code = await registered(f, function)
    await f.invoke(*ids, code=code, payload=pack_call(args, {}), **more)
    return [await f.result(id) for id in ids]


def spans(results: list[Result]) -> list[tuple[int, int]]:
    return [(one.timings.started, one.timings.finished) for one in results]


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def made() -> Callable[[str, int], tuple[int, str | None]]:
    """Return what a task sees of its node, as a function that travels by value; it waits until so many are there."""

    def seen(folder: str, count: int) -> tuple[int, str | None]:
        import os
        import pathlib
        import time

        pathlib.Path(folder, str(os.getpid())).touch()
        while len(os.listdir(folder)) < count:
            time.sleep(0.005)
        return len(os.sched_getaffinity(0)), os.environ.get("CUDA_VISIBLE_DEVICES")

    return seen


async def test_a_task_sees_its_own_cores_and_accelerators_and_the_next_one_all_again(
    kafka: str, topics: Topics, tmp_path: Path
) -> None:
    async with site(kafka, topics, tmp_path) as f:
        alone, both = tmp_path / "alone", tmp_path / "both"
        alone.mkdir()
        both.mkdir()
        (before,) = await run(f, made(), "before", args=(str(alone), 1))
        a, b = await run(f, made(), "a", "b", args=(str(both), 2), resources=Resources(accelerators=1))
        (after,) = await run(f, made(), "after", args=(str(alone), 1))
        assert loads(after.payload) == loads(before.payload)
        own = [loads(one.payload) for one in (a, b)]
        assert {device for _, device in own} == {"g0", "g1"}
        if len(os.sched_getaffinity(0)) >= 2:  # as many as the manager has workers
            assert [cores for cores, _ in own] == [1, 1]


async def test_what_has_two_cores_shares_them_with_nobody(kafka: str, topics: Topics, tmp_path: Path) -> None:
    async with site(kafka, topics, tmp_path) as f:
        code = await registered(f, lambda: __import__("time").sleep(0.05))
        for n in range(3):
            await f.invoke(*(f"small{n}{m}" for m in range(4)), code=code, payload=pack_call([], {}))
            await f.invoke(f"big{n}", code=code, payload=pack_call([], {}), resources=Resources(cores=2))
        big = spans([await f.result(f"big{n}") for n in range(3)])
        small = spans([await f.result(f"small{n}{m}") for n in range(3) for m in range(4)])
        assert not any(overlap(one, other) for one in big for other in small)
        assert not any(overlap(one, other) for one, other in combinations(big, 2))


async def test_what_takes_more_memory_than_it_may_is_killed_with_its_children(
    kafka: str, topics: Topics, tmp_path: Path
) -> None:
    def greedy(in_child: bool) -> int:
        import os
        import time

        if in_child and os.fork():
            os.wait()
            return 0
        held = bytearray(os.urandom(1)) * (400 << 20)
        time.sleep(60)
        return len(held)

    async with site(kafka, topics, tmp_path) as f:
        bounded = Resources(memory=200 << 20)
        (alone,) = await run(f, greedy, "alone", args=(False,), resources=bounded)
        (child,) = await run(f, greedy, "child", args=(True,), resources=bounded)
        for one in (alone, child):
            assert one.failure is not None
            assert (one.status, one.failure.type, one.attempts) == ("failed", "TaskOutOfMemory", 1)
            assert "may take 200 MiB" in one.failure.message
        (fine,) = await run(f, lambda: len(bytes(50 << 20)), "fine", resources=bounded)
        assert loads(fine.payload) == 50 << 20


async def test_what_is_limited_runs_one_at_a_time(kafka: str, topics: Topics, tmp_path: Path) -> None:
    async with site(kafka, topics, tmp_path) as f:
        ids = [f"beam{n}" for n in range(6)]
        results = await run(f, lambda: __import__("time").sleep(0.02), *ids, limits={"beam": 1})
        assert not any(overlap(one, other) for one, other in combinations(spans(results), 2))


async def test_what_cannot_be_is_a_dead_letter_and_stops_nobody(kafka: str, topics: Topics, tmp_path: Path) -> None:
    async with site(kafka, topics, tmp_path) as f:
        await f.invoke("none", resources=Resources(cores=0))
        await f.invoke("negative", resources=Resources(memory=-1))
        await f.invoke("limit", limits={"": 1})
        (good,) = await run(f, lambda: 1, "good")
        assert good.status == "succeeded"
        assert {one.id for one in f.results} == {"good"}


async def test_the_same_call_runs_once_where_it_may(kafka: str, topics: Topics, tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    def marked(path: str, value: int) -> int:
        with open(path, "a") as file:
            file.write(f"{value}\n")
        return value * 2

    async with site(kafka, topics, tmp_path / "home") as f:
        results = await run(f, marked, *(f"m{n}" for n in range(20)), args=(str(marks), 4), memoize=True)
        assert [loads(one.payload) for one in results] == [8] * 20
        assert marks.read_text() == "4\n"
        assert [one.attempts for one in results] == [1] + [0] * 19
