"""Two dispatchers of one site, each a process of its own, with a real manager: one active, one standing by."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.failures.load import tracing
from tests.integration.dispatching import Fabric, dispatcher_process, fabric
from tests.integration.test_dispatcher import free_address
from tests.integration.test_fabric import manager_process, registered
from upon.messages import SiteStatus
from upon.serialize import pack_call
from upon.topics import Topics

TASKS = 200


class Pair:
    """Two dispatchers and what they do.

    Attributes:
        active, standby: as they were at first.
    """

    def __init__(self, f: Fabric, effects: Path, active: subprocess.Popen[bytes]) -> None:
        self.f, self.effects, self.active = f, effects, active
        self.standby = active
        self.ids = [f"t{number}" for number in range(TASKS)]
        self.code = ""

    def last(self) -> SiteStatus:
        """Return the last word that counts."""
        last: SiteStatus | None = None
        for status in self.f.statuses:
            if status.holds_after(last):
                last = status
        assert last is not None
        return last

    async def until_active(self, process: subprocess.Popen[bytes]) -> None:
        await self.f.until(lambda: self.last().pid == process.pid and bool(self.last().managers), "managers turned")

    async def invoke(self, id: str) -> None:
        await self.f.invoke(id, code=self.code, payload=pack_call([id, str(self.effects)], {}))

    async def begin(self) -> None:
        """Give the work to the active one, and wait until some of it is done."""
        for id in self.ids:
            await self.invoke(id)
        await self.f.until(lambda: len(self.f.results) >= TASKS // 5, "a part of the results")
        assert len(self.f.results) < TASKS

    async def all_done_once(self) -> None:
        await self.f.until(lambda: {r.id for r in self.f.results} >= set(self.ids), "all results")
        assert Counter(self.effects.read_text().split()) == dict.fromkeys(self.ids, 1)
        assert {r.status for r in self.f.results} == {"succeeded"}


@asynccontextmanager
async def pair(kafka: str, topics: Topics, folder: Path, first: str = "") -> AsyncIterator[Pair]:
    addresses = [free_address(), free_address()]
    async with fabric(kafka, topics.prefix, folder / "home") as f:
        processes = [dispatcher_process(f.settings, addresses[0], first)]
        made = Pair(f, folder / "effects", processes[0])
        try:
            await f.until(lambda: bool(f.statuses), "the first dispatcher")
            processes.append(dispatcher_process(f.settings, addresses[1], first))
            made.standby = processes[1]
            processes.append(manager_process(f.settings, ",".join(addresses)))
            made.code = await registered(f, tracing(0.02))
            await made.until_active(made.active)
            yield made
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            for process in processes:
                process.wait(30)


async def test_the_active_one_is_killed(kafka: str, topics: Topics, tmp_path: Path) -> None:
    async with pair(kafka, topics, tmp_path) as two:
        await two.begin()
        two.active.kill()
        two.active.wait()
        await two.until_active(two.standby)
        await two.all_done_once()


async def test_the_active_one_is_stopped_and_wakes_after_it_was_superseded(
    kafka: str, topics: Topics, tmp_path: Path
) -> None:
    async with pair(kafka, topics, tmp_path) as two:
        await two.begin()
        two.active.send_signal(signal.SIGSTOP)
        await two.until_active(two.standby)
        two.active.send_signal(signal.SIGCONT)
        await two.all_done_once()
        two.standby.terminate()  # the other stands by now: it takes over again
        assert two.standby.wait(30) == 0
        await two.until_active(two.active)
        await two.invoke("after")
        assert (await two.f.result("after")).status == "succeeded"


async def test_the_active_one_is_told_to_stop(kafka: str, topics: Topics, tmp_path: Path) -> None:
    async with pair(kafka, topics, tmp_path) as two:
        await two.begin()
        two.active.terminate()
        assert two.active.wait(30) == 0
        await two.until_active(two.standby)
        await two.all_done_once()


async def test_two_that_take_the_site_from_each_other(kafka: str, topics: Topics, tmp_path: Path) -> None:
    """Neither is dead: each gives the other up after three seconds of silence, which learns of it at its work."""
    silent = (
        "import upon.dispatcher.tenure as t; t.SILENT_LOOKS = 6; "
        "import upon.dispatcher.announcer as a; a.SPEAKS_EVERY = a.CHANGES = 1000; "
    )
    async with pair(kafka, topics, tmp_path, silent) as two:
        await two.begin()
        while len({status.session for status in two.f.statuses}) < 3:
            two.ids.append(f"more{len(two.ids)}")
            await two.invoke(two.ids[-1])
            await two.f.result(two.ids[-1])
        await two.all_done_once()
