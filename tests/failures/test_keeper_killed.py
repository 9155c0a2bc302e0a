"""The keeper is killed, then the supervisor too: parts are watched over, and nothing that is left over runs on."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.systems import System, wait_for
from upon import Client, Executor


def _trace(effects: str, what: int) -> int:
    import os

    descriptor = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{what}\n".encode())
    os.close(descriptor)
    return what


def _until(file: str) -> str:
    """Run until the file is there."""
    import os
    import time

    while not os.path.exists(file):
        time.sleep(0.01)
    return file


def _keeper(supervisor: int) -> psutil.Process:
    def found() -> psutil.Process | None:
        for child in psutil.Process(supervisor).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # one that was killed, not yet waited for
                if child.cmdline()[-1].endswith("keeper.py"):
                    return child
        return None

    return wait_for(found, "a keeper")


@pytest.fixture
def own(tmp_path: Path, kafka: str, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system of this test's own on the shared Kafka; the test starts it, and stops it."""
    monkeypatch.setenv("UPON_PREFIX", f"test-{secrets.token_hex(4)}")
    monkeypatch.setenv("UPON_KAFKA", kafka)
    return System(tmp_path / "home", tmp_path)


@pytest.mark.timeout(600)  # three starts and thirty commands
def test_killed_in_every_order_and_one_system_for_each_prefix(own: System, tmp_path: Path) -> None:
    own.run("up", "--detach", "--workers", "2")
    try:
        first = own.wait_up()

        # the keeper goes, then a part: it is started again, and another keeper watches
        keeper = _keeper(first["pid"])
        keeper.kill()
        killed = own.kill("dispatcher")
        wait_for(lambda: own.pids("dispatcher") not in ([], [killed]), "another dispatcher")
        wait_for(lambda: _keeper(first["pid"]).pid != keeper.pid, "another keeper")
        own.wait_up()

        # another system on this Kafka would run each event twice
        other = System(tmp_path / "other", tmp_path)
        refused = other.run("up", "--detach", check=False)
        assert refused.returncode == 1
        assert "is served already" in refused.stderr
        assert "--site NAME" in refused.stderr
        refused = other.run("up", "--site", "elsewhere", check=False)
        assert refused.returncode == 1
        assert "another system serves the prefix" in refused.stderr
        assert "--prefix NAME" in refused.stderr

        # supervisor and keeper go at once: nobody is there to stop the parts
        left = {name: own.pids(name)[0] for name in ("service", "streams", "dispatcher", "manager", "sources")}
        _keeper(first["pid"]).kill()
        os.kill(first["pid"], signal.SIGKILL)
        wait_for(lambda: own.status()["state"] == "stopped", "that the supervisor is missed")
        said = own.run("status", check=False)
        assert said.returncode == 1
        assert all(f"{name} (pid {pid})" in " ".join(said.stdout.split()) for name, pid in left.items())
        own.run("up", "--detach", "--workers", "2")
        status = own.wait_up()
        assert not [pid for pid in left.values() if psutil.pid_exists(pid)]
        assert all(len(status["parts"][name]["pids"]) == 1 for name in left)
        effects = tmp_path / "effects"
        with Executor(home=own.home) as executor:
            assert list(executor.map(_trace, [str(effects)] * 100, range(100), timeout=60)) == list(range(100))
        assert Counter(effects.read_text().split()).most_common(1)[0][1] == 1

        _restart_and_logs(own)
        _drain(own, tmp_path)
    finally:
        own.run("down")
    assert own.status()["troubles"] == []


def _restart_and_logs(own: System) -> None:
    before = own.pids("manager")
    assert "manager is up again" in own.run("restart", "manager").stdout
    assert own.pids("manager") not in ([], before)
    unknown = own.run("restart", "nothing", check=False)
    assert unknown.returncode == 2
    assert "service, streams" in unknown.stderr
    shown = own.run("logs", "dispatcher", "-n", "5").stdout
    assert len(shown.splitlines()) == 5
    assert all(" dispatcher " in line for line in shown.splitlines())
    assert {line.split()[1] for line in own.run("logs").stdout.splitlines() if line[:2] == "20"} >= {
        "service",
        "manager",
    }
    own.wait_up()


def _drain(own: System, tmp_path: Path) -> None:
    """What runs ends, what waits is not begun, and both are said."""
    go, late = tmp_path / "go", tmp_path / "late"
    with Executor(home=own.home) as executor, Client(home=own.home) as client:
        running = executor.submit(_until, str(go))
        wait_for(lambda: any(site.running for site in client.sites()), "that it runs")
        draining = subprocess.Popen(
            [sys.executable, "-m", "upon", "down", "--drain", "--home", str(own.home)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert draining.stdout is not None
        assert draining.stdout.readline().startswith("waiting for 1 running task")
        waits = executor.submit(_trace, str(late), 1)
        site = wait_for(lambda: next((s for s in client.sites() if s.queued), None), "that the second waits")
        assert site.draining
        go.write_text("")
        assert running.result(timeout=60) == str(go)
        said, _ = draining.communicate(timeout=60)
        assert draining.returncode == 0
        assert "1 queued task will start with the next `upon up`" in said
        assert not late.exists()
        own.run("up", "--detach", "--workers", "1")
        assert waits.result(timeout=60) == 1
