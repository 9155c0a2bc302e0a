"""The supervisor is killed: no process stays behind, and the next `upon up` finds all data and starts."""

from __future__ import annotations

import os
import signal

import psutil

from tests.systems import System, wait_for
from upon import Client, Executor


def test_supervisor_killed(system: System) -> None:
    system.wait_up()
    with Executor(home=system.home) as executor:
        done = executor.submit(pow, 2, 10)
        assert done.result(timeout=60) == 1024
    status = system.status()
    pids = [pid for part in status["parts"].values() for pid in part["pids"]]
    everything = {psutil.Process(status["pid"]), *psutil.Process(status["pid"]).children(recursive=True)}
    everything |= {child for pid in pids for child in psutil.Process(pid).children(recursive=True)}
    os.kill(status["pid"], signal.SIGKILL)
    wait_for(lambda: not [p for p in everything if p.is_running() and p.status() != "zombie"], "all gone")

    system.run("up", "--detach")
    again = system.wait_up()
    assert again["service"] == status["service"]
    with Client(home=system.home) as client:
        assert client.task(done).status == "succeeded"
