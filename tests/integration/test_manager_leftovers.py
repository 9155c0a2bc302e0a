"""What a task leaves in its worker is not there for the next one; what it printed and returned arrives all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.managing import Site, managed
from upon import serialize
from upon.dispatcher import protocol
from upon.endpoint.output import KEPT


def chdir() -> None:
    os.chdir("/")


def umask() -> None:
    os.umask(0o777)


def environ() -> None:
    os.environ["LEAK"] = "secret of the last task"
    del os.environ["PATH"]


def other_environ() -> None:
    os.environ = {"LEAK": "1"}  # type: ignore[assignment]  # noqa: B003


def path() -> None:
    sys.path.insert(0, "/tmp/elsewhere")


def alarm() -> None:
    import signal

    signal.alarm(1)


def handlers() -> None:
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: None)


def masked() -> None:
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def recursion() -> None:
    sys.setrecursionlimit(150)


def trace() -> None:
    sys.settrace(lambda *_: None)


def collector() -> None:
    import gc

    gc.disable()


def sockets() -> None:
    import socket

    socket.setdefaulttimeout(0.001)


def streams_replaced() -> None:
    import io

    sys.stdout, sys.stderr = io.StringIO(), None  # type: ignore[assignment]


def stdin_closed() -> None:
    os.close(0)


def threads() -> None:
    import threading
    import time

    def noise() -> None:
        while True:
            print("NOISE of an earlier task")
            time.sleep(0.001)

    threading.Thread(target=noise, daemon=True).start()


def files() -> None:
    import builtins

    builtins.kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]  # type: ignore[attr-defined]


def limits() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


def nice() -> None:
    os.nice(1)


def patched() -> None:
    import builtins

    builtins.len = lambda _: 42  # type: ignore[assignment]


def poisoned() -> None:
    import types

    module = types.ModuleType("json")
    module.dumps = lambda *_: "poisoned"  # type: ignore[attr-defined]
    sys.modules["json"] = module


REUSED = [
    *(chdir, umask, environ, other_environ, path, alarm, handlers, masked, recursion, trace, collector, sockets),
    *(streams_replaced, stdin_closed),
]
REPLACED = [threads, files, limits, nice, patched, poisoned]


def probe() -> dict[str, Any]:
    """Return what a task finds."""
    import builtins
    import gc
    import json
    import resource
    import signal
    import socket
    import threading

    mask = os.umask(0)
    os.umask(mask)
    found: dict[str, Any] = {
        "cwd": os.getcwd(),
        "umask": mask,
        "environ": sorted(os.environ.items()),
        "path": list(sys.path),
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0],
        "handlers": [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)],
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "recursion": sys.getrecursionlimit(),
        "trace": str(sys.gettrace()),
        "gc": gc.isenabled(),
        "timeout": socket.getdefaulttimeout(),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "builtins": builtins.len.__module__,
        "json": json.dumps([1]),
        "stdin": os.readlink("/proc/self/fd/0"),
    }
    print("printed")
    return found


async def both(site: Site, action: Callable[[], Any]) -> None:
    """Run a task, and see that the next one finds what one before finds."""
    name = action.__name__
    before = await site.value(f"before {name}", probe)
    task, after = site.task(name, action), site.task(f"after {name}", probe)
    site.assign(task, after)  # together: the second is ahead at the worker when the first ends
    outcome = await site.outcome(name)
    assert outcome.failure is None, outcome.failure
    second = await site.outcome(f"after {name}")
    assert second.failure is None, second.failure
    assert serialize.loads(second.payload) == before
    assert second.stdout == "printed\n"
    assert (second.pid != outcome.pid) == (action in REPLACED)
    assert len(site.outcomes[name]) == 1


async def test_what_can_be_put_back_is_put_back_and_the_rest_costs_the_worker() -> None:
    async with managed(workers=1) as site:
        for action in (*REUSED, *REPLACED):
            await both(site, action)
        assert not site.deaths


async def test_what_functions_see_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in `os.environ` nor in what the kernel remembers of the worker and its parent."""

    def look() -> tuple[dict[str, str], str]:
        kept = [Path(f"/proc/{pid}/environ").read_text() for pid in (os.getpid(), os.getppid())]
        return dict(os.environ), "".join(kept)

    for name in ("UPON_TOKEN", "UPON_DATABASE", "UPON_GLOBUS_CLIENT_SECRET", "CLOUD_KEY"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("BEAMLINE_NAME", "7-BM")
    monkeypatch.setenv("UPON_WORKER_ENVIRONMENT", "BEAMLINE_*")
    async with managed(workers=1) as site:
        environment, kept = await site.value("a", look)
        assert environment["BEAMLINE_NAME"] == "7-BM"
        assert environment["PATH"] == os.environ["PATH"]
        assert "a secret" not in f"{environment}{kept}"


async def test_seeds_are_not_for_the_next_task() -> None:
    def seeded() -> float:
        import random

        random.seed(42)
        return random.random()

    def drawn() -> float:
        import random

        return random.random()

    async with managed(workers=1) as site:
        first = await site.value("seeded", seeded)
        assert first == pytest.approx(0.6394267984578837)
        assert len({await site.value(f"d{n}", drawn) for n in range(5)} | {0.025010755222666936}) == 6
        assert await site.value("again", seeded) == first


class TestOutput:
    """A function that closes or redirects its streams has succeeded all the same."""

    async def test_what_it_printed_before_arrives_and_the_next_task_prints(self, tmp_path: Path) -> None:
        def undo(how: str) -> int:
            print("before", flush=True)
            if how == "close":
                sys.stdout.close()
            elif how == "detach":
                sys.stdout.detach()  # type: ignore[union-attr]
            elif how == "close 1":
                os.close(1)
            else:
                null = os.open("/dev/null", os.O_WRONLY)
                os.dup2(null, 1)
                os.dup2(null, 2)
            return 7

        def write(path: str) -> bytes:
            with open(path, "wb", buffering=0) as file:
                file.write(b"data")
                print("a print")
                os.system("echo a child")
                file.write(b"more")
            return Path(path).read_bytes()

        async with managed(workers=1) as site:
            for how in ("close", "detach", "close 1", "null"):
                outcome = await site.run(how, undo, how)
                assert (outcome.failure, outcome.stdout) == (None, "before\n"), how
                assert await site.value(f"after {how}", write, str(tmp_path / how)) == b"datamore"
                assert site.outcomes[f"after {how}"][0].stdout == "a print\na child\n"
                assert (len(site.outcomes[how]), site.deaths) == (1, {})

    async def test_what_c_code_prints_is_its_task_s(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def printf() -> None:
            import ctypes

            ctypes.CDLL(None).printf(b"from C")

        monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
        async with managed(workers=1) as site:
            for id in ("a", "b"):
                assert (await site.run(id, printf)).stdout == "from C"
            assert (await site.run("c", print, "from Python")).stdout == "from Python\n"

    async def test_how_one_task_sets_its_streams_is_not_for_the_next(self) -> None:
        def set_them(how: str) -> None:
            print("é")
            if how == "encoding":
                sys.stdout.reconfigure(encoding="ascii", errors="strict")  # type: ignore[union-attr]
            elif how == "methods":
                sys.stdout.write = sys.stderr.write = lambda text: 0  # type: ignore[assignment, method-assign]
            else:
                sys.stdout = sys.__stdout__ = None  # type: ignore[assignment, misc]

        def speak() -> None:
            print("é")
            print("é", file=sys.__stdout__)

        async with managed(workers=1) as site:
            for how in ("encoding", "methods", "originals"):
                assert (await site.run(how, set_them, how)).stdout == "é\n"
                assert (await site.run(f"after {how}", speak)).stdout == "é\né\n", how
            assert not site.deaths

    async def test_what_was_printed_before_all_descriptors_were_closed_arrives(self) -> None:
        def close_all() -> int:
            print("before")
            os.closerange(0, 5000)
            return 7

        async with managed(workers=1) as site:
            outcome = await site.run("a", close_all)
            assert (outcome.status, outcome.stdout) == ("succeeded", "before\n")
            assert (await site.run("b", print, "after")).stdout == "after\n"

    async def test_a_child_that_goes_on_printing_does_not_print_into_the_next_task(self) -> None:
        def leave() -> None:
            subprocess.Popen(["yes", "of the task before"], start_new_session=True)

        def wait() -> None:
            import time

            print("its own")
            time.sleep(0.05)

        async with managed(workers=1) as site:
            tasks = [site.task(f"{n}", (leave, wait)[n % 2]) for n in range(6)]
            site.assign(*tasks)
            await site.until(lambda: len(site.outcomes) == 6, "all")
            assert {site.outcomes[f"{n}"][0].stdout for n in (1, 3, 5)} == {"its own\n"}

    async def test_what_does_not_decode_and_what_has_no_end(self) -> None:
        def strange() -> None:
            print("\udcff\x00\x1b[2J")
            sys.stdout.buffer.write(b"\xff\xfe\n")

        def endless(raw: bool) -> int:
            line = "x" * 999_999 + "\n"
            most = 0
            for _ in range(300):
                if raw:
                    os.write(1, line.encode())
                else:
                    sys.stdout.write(line)
                most = max(most, os.fstat(1).st_blocks * 512)
            print("the end")
            return most

        async with managed(workers=1) as site:
            outcome = await site.run("strange", strange)
            assert outcome.stdout == "\\udcff\x00\x1b[2J\n\ufffd\ufffd\n"
            assert await site.value("endless", endless, False) <= 20_000_000
            text = site.outcomes["endless"][0].stdout
            assert text.endswith("x\nthe end\n")
            assert len(text) <= KEPT + 100
            assert text.startswith(f"[{300_000_000 + len('the end') + 1 - KEPT:,} bytes before this were dropped]")
            assert await site.value("raw", endless, True)
            assert site.outcomes["raw"][0].stdout.endswith("x\nthe end\n")


class TestProcesses:
    """What a function starts ends with its task, however it hides."""

    @staticmethod
    def daemon(path: str) -> None:
        """Fork twice, in a session of its own."""
        if os.fork():
            os.wait()
            return
        os.setsid()
        if os.fork() == 0:
            Path(path).write_text(str(os.getpid()))
            os.execvp("sleep", ["sleep", "1000"])
        os._exit(0)

    @staticmethod
    async def started(site: Site, path: Path) -> int:
        await site.until(lambda: path.exists() and path.read_text(), "the daemon")
        return int(path.read_text())

    async def test_left_by_a_task_that_ended(self, tmp_path: Path) -> None:
        def leave(path: str) -> list[int]:
            child = subprocess.Popen(["sleep", "1000"])
            lost = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            TestProcesses.daemon(path)
            for _ in range(30):
                if os.fork() == 0:
                    os.execvp("sleep", ["sleep", "1000"])
            while not os.path.exists(path):
                pass
            return [child.pid, lost.pid]

        async with managed(workers=1) as site:
            path = tmp_path / "daemon"
            pids = await site.value("a", leave, str(path))
            pids.append(await self.started(site, path))
            await site.until(lambda: not any(map(psutil.pid_exists, pids)), "their end")
            assert psutil.Process(site.ready[0].workers[0]).children(recursive=True) == []
            assert await site.value("b", lambda: 1) == 1
            assert not site.deaths

    @pytest.mark.parametrize("how", ["cancelled", "killed"])
    async def test_of_a_task_that_is_cancelled_or_whose_worker_is_killed(self, tmp_path: Path, how: str) -> None:
        def hang(path: str) -> None:
            import time

            subprocess.Popen(["sleep", "1000"], start_new_session=True)
            TestProcesses.daemon(path)
            time.sleep(1000)

        async with managed(workers=1) as site:
            site.assign(site.task("a", hang, str(tmp_path / "a")))
            daemon = await self.started(site, tmp_path / "a")
            await site.until(lambda: "a" in site.begun, "Started")
            worker = psutil.Process(site.begun["a"][0].pid)
            left = worker.children(recursive=True)
            assert len(left) == 2
            assert daemon in [process.pid for process in left]
            if how == "killed":
                worker.kill()
                await site.until(lambda: "a" in site.deaths, "Lost")
            else:
                site.say(protocol.Cancel((protocol.Attempt("a", 1),)))
                assert (await site.outcome("a")).status == "cancelled"
            await site.until(lambda: not any(process.is_running() for process in left), "their end")
            assert await site.value("after", lambda: 1) == 1

    async def test_of_a_task_over_its_timeout_and_of_one_that_kills_the_workers_parent(self, tmp_path: Path) -> None:
        def hang(path: str) -> None:
            import time

            TestProcesses.daemon(path)
            time.sleep(1000)

        def kill(path: str) -> None:
            import signal
            import time

            TestProcesses.daemon(path)
            while not os.path.exists(path):
                pass
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(1000)

        async with managed(workers=1) as site:
            site.assign(site.task("a", hang, str(tmp_path / "a"), timeout=6.0))
            daemon = await self.started(site, tmp_path / "a")
            assert (await site.outcome("a")).failure is not None
            await site.until(lambda: not psutil.pid_exists(daemon), "the end of the daemon")
            site.assign(site.task("b", kill, str(tmp_path / "b")))
            daemon = await self.started(site, tmp_path / "b")
            await site.until(lambda: "b" in site.deaths, "the death")
            await site.until(lambda: not psutil.pid_exists(daemon), "the end of the daemon")
            assert await site.value("c", lambda: 1) == 1


async def test_a_function_that_closes_every_descriptor_returns_what_it_returns_once() -> None:
    def close(first: int, last: int, wait: float) -> bytes:
        import time

        os.closerange(first, last)
        time.sleep(wait)
        return b"x" * 1_000_000

    def write() -> int:
        for number in range(3, 200):
            try:
                os.write(number, b"\xff\xff\xff\x7f" + b"x" * 1000)
            except OSError:
                continue
        return 7

    def forge() -> int:
        """Let another process say at the back door that the task is done."""
        import socket

        from upon.endpoint.channel import Done, frame

        sockets = Path("/proc/net/unix").read_text().splitlines()
        doors = [line.split()[-1][1:] for line in sockets if "@upon-" in line]
        if os.fork() == 0:
            for door in doors:
                with socket.socket(socket.AF_UNIX) as end:
                    end.connect("\0" + door)
                    end.sendall(frame([Done(0, 1, 2, b"forged")]))
                    end.shutdown(socket.SHUT_WR)
                    end.recv(1)
            os._exit(0)
        os.wait()
        return len(doors)

    async with managed(workers=1) as site:
        worker = site.ready[0].workers[0]
        for n in range(2):  # the low ones alone, as programs do that become daemons, cost nothing
            assert (await site.run(f"low {n}", close, 3, 1000, 0.0)).pid == worker
        assert await site.value("write", write) == 7
        assert await site.value("forge", forge) >= 1
        assert serialize.loads(site.outcomes["forge"][0].payload) >= 1
        for id, first, wait in (("all", 3, 0.0), ("streams too", 0, 0.0), ("and goes on", 0, 1.2)):
            site.assign(site.task(id, close, first, 1_000_000, wait), site.task(f"after {id}", os.getpid))
            outcome = await site.outcome(id)
            assert outcome.failure is None
            assert len(serialize.loads(outcome.payload)) == 1_000_000
            assert (await site.outcome(f"after {id}")).pid != outcome.pid
        assert all(len(outcomes) == 1 for outcomes in site.outcomes.values())
        assert not site.deaths
