"""One supervisor per home, and a state file that is believed only while its writer lives."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from tests.systems import wait_for
from upon.config import Home
from upon.embedded.state import Lock, PartState, SystemState, read_state
from upon.errors import Conflict


def _state(**changes: float) -> SystemState:
    values = {"pid": os.getpid(), "started": psutil.Process().create_time()} | changes
    return SystemState(kafka="127.0.0.1:1", service="http://127.0.0.1:2", site="local", **values)  # type: ignore[arg-type]


def test_a_written_state_is_read(tmp_path: Path) -> None:
    state = _state()
    state.parts["kafka"] = PartState(state="up", pids=[7], restarts=2)
    state.write(Home(tmp_path))
    assert read_state(Home(tmp_path)) == state


def test_the_state_of_a_dead_supervisor_counts_as_none(tmp_path: Path) -> None:
    _state(started=1.0).write(Home(tmp_path))  # our pid, but another process's start
    assert read_state(Home(tmp_path)) is None


def test_the_state_of_a_supervisor_that_ended_and_was_not_waited_for_counts_as_none(tmp_path: Path) -> None:
    """As in a container whose first process waits for nobody: `upon down` would wait for ever."""
    process = psutil.Popen([sys.executable, "-c", ""])
    try:
        _state(pid=process.pid, started=process.create_time()).write(Home(tmp_path))
        wait_for(lambda: process.status() == psutil.STATUS_ZOMBIE, "its end")
        assert read_state(Home(tmp_path)) is None
    finally:
        process.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_state_counts_as_none(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    home.run.mkdir()
    (home.run / "state.json").write_text(text)
    assert read_state(home) is None


def test_a_second_supervisor_is_refused(tmp_path: Path) -> None:
    first = Lock(Home(tmp_path))
    with pytest.raises(Conflict, match="upon down"):
        Lock(Home(tmp_path))
    first.release()
    Lock(Home(tmp_path)).release()
