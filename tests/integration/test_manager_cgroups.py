"""Workers in cgroups, where this machine allows that: what functions start ends with them, whoever is killed."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.managing import PROGRAM, Site, gone, managed, start, stop
from tests.integration.test_manager import leave_a_child
from upon.dispatcher import protocol
from upon.endpoint import cgroups
from upon.messages import Resources


def refusal() -> str:
    """Return why no cgroup can be made here; empty: one can."""
    if (own := cgroups.place()) is None:
        return "no cgroup v2 that this user may write to"
    with tempfile.TemporaryDirectory() as notes:
        made = cgroups.make(own, Path(notes))
        if made is None:
            return f"no cgroup with cgroup.kill can be made in {own}"
        made.remove()
    return ""


pytestmark = pytest.mark.skipif(bool(REFUSAL := refusal()), reason=REFUSAL)


def cgroup_of(pid: int) -> Path:
    own = cgroups.place()
    assert own is not None
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    named = next(line[3:] for line in lines if line.startswith("0::"))
    mine = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return own / os.path.relpath(named, mine)


def hop(path: str) -> None:
    """Start a process that is another one each moment: each forks the next, in a session of its own, and ends."""
    if os.fork() == 0:
        os.setsid()
        Path(path).touch()
        while True:
            if os.fork():
                os._exit(0)
            os.setsid()
    time.sleep(1000)


def notes(site: Site) -> list[Path]:
    return list((site.home / "endpoint" / "local" / "cgroups").iterdir())


async def test_each_worker_has_one_and_nothing_is_left_of_them() -> None:
    async with managed(workers=2) as site:
        groups = {cgroup_of(pid) for pid in site.ready[0].workers}
        (base,) = {group.parent for group in groups}
        assert len(groups) == 2
        parent = psutil.Process(site.ready[0].workers[0]).ppid()
        assert cgroup_of(parent) == base / "parent"
        assert [note.read_text().splitlines()[1] for note in notes(site)] == [str(base)]
        old = cgroup_of(site.ready[0].workers[0])
        os.kill(site.ready[0].workers[0], signal.SIGKILL)
        await site.until(lambda: not old.exists(), "the end of a dead worker's cgroup")
    assert not base.exists()


async def test_what_forks_without_end_ends_with_its_task(tmp_path: Path) -> None:
    async with managed(workers=1) as site:
        site.assign(site.task("a", hop, str(tmp_path / "hops")))
        await site.until(lambda: "a" in site.begun and (tmp_path / "hops").exists(), "its start")
        group = cgroup_of(site.begun["a"][0].pid)
        site.say(protocol.Cancel((protocol.Attempt("a", 1),)))
        assert (await site.outcome("a")).status == "cancelled"
        await site.until(lambda: not group.exists(), "the end of all that it had started")
        assert await site.value("b", lambda: 1) == 1


async def test_what_is_left_when_manager_and_parent_are_killed_together_ends_with_the_next_manager(
    tmp_path: Path,
) -> None:
    async with managed(workers=1) as site:
        site.assign(site.task("a", leave_a_child, str(tmp_path)))
        await site.until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text(), "the child")
        child = psutil.Process(int((tmp_path / "child").read_text()))
        base = cgroup_of(child.pid).parent
        worker = psutil.Process(child.ppid())
        assert site.process is not None
        site.process.send_signal(signal.SIGSTOP)
        os.kill(worker.ppid(), signal.SIGKILL)
        site.process.kill()
        site.process.wait()
        await gone(site, [worker])
        assert child.is_running(), "it is nobody's child"
        start(site, workers=1)
        await gone(site, [child])
        await site.until(lambda: not base.exists(), "the end of its cgroup")
        await site.until(lambda: len(site.ready) == 2, "the next manager")
        assert len(notes(site)) == 1


async def test_the_parent_alone_removes_it_when_its_manager_is_killed() -> None:
    async with managed(workers=2) as site:
        base = cgroup_of(site.ready[0].workers[0]).parent
        assert site.process is not None
        site.process.kill()
        await site.until(lambda: not base.exists(), "the end of the cgroup")


async def test_a_parent_that_is_killed_leaves_none(tmp_path: Path) -> None:
    async with managed(workers=1) as site:
        base = cgroup_of(site.ready[0].workers[0]).parent
        os.kill(psutil.Process(site.ready[0].workers[0]).ppid(), signal.SIGKILL)
        await site.until(lambda: not base.exists(), "the end of the old parent's cgroup")
        assert await site.value("after", lambda: 1) == 1
        assert len(notes(site)) == 1


def no_memory() -> str:
    """Return why the kernel cannot bound the memory of a manager's tasks here; empty: it can."""
    own = cgroups.place()
    if own is None or "memory" not in (own / "cgroup.controllers").read_text().split():
        return "the memory controller is not in cgroup v2 here"
    given = "memory" in (own / "cgroup.subtree_control").read_text().split()
    return "" if given else f"the memory controller is not handed down by {own}, in which the tests run"


@pytest.mark.skipif(bool(REFUSED := no_memory()), reason=REFUSED)
async def test_the_kernel_ends_what_takes_more_memory_than_it_was_promised() -> None:
    def take(mebibytes: int) -> int:
        return len(bytes(range(256)) * (mebibytes << 12))

    with tempfile.TemporaryDirectory(prefix="upon-manager-") as home:
        site = Site(Path(home))
        own = cgroups.place()
        assert own is not None
        unit = own / f"upon-test-{os.getpid()}"
        unit.mkdir()
        program = f"open({str(unit / 'cgroup.procs')!r}, 'w').write('0'); {PROGRAM}"
        start(site, workers=1, program=program)
        try:
            await site.until(lambda: site.ready, "Ready")
            promised = Resources(memory=200 << 20)
            for id, much in (("little", 50), ("much", 400), ("again", 50)):
                site.assign(site.task(id, take, much)._replace(resources=promised))
                outcome = await site.outcome(id)
                assert (outcome.failure and outcome.failure.type) == (None if much < 200 else "TaskOutOfMemory"), id
        finally:
            stop(site)
            site.router.close()
            for folder, _, _ in os.walk(unit, topdown=False):
                os.rmdir(folder)
