"""Which processes belong to a home, and which of them nobody looks after any more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from upon import processes
from upon.embedded import leftover
from upon.part import SUPERVISOR

NOBODY = f"{os.getpid()}:1.00"
"""A supervisor that had our process id long ago."""


@contextmanager
def _part(home: Path, **environment: str) -> Iterator[psutil.Process]:
    """A process with the command line of a part; what it runs is of no importance."""
    program = "import sys, time; print('there', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", program, "-m", "upon", "part", "streams", "--home", str(home)]
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("home", "part"), [("/a", "streams"), ("/a/b", ""), ("/", "")])
def test_a_part_is_known_by_its_home(home: str, part: str) -> None:
    command = ["python", "-m", "upon", "part", "streams", "--home", "/a"]
    assert leftover.part_of(command, Path(home)) == part
    assert leftover.part_of(command[:-1], Path(home)) == ""


def test_only_what_has_lost_its_supervisor_is_stopped(tmp_path: Path) -> None:
    def found() -> dict[int, bool | None]:
        return {one.process.pid: one.supervised for one in leftover.system(tmp_path, tmp_path / "x.properties")}

    with (
        _part(tmp_path, **{SUPERVISOR: NOBODY}) as lost,
        _part(tmp_path, **{SUPERVISOR: processes.myself()}) as ours,
        _part(tmp_path) as by_hand,
        _part(tmp_path / "other", **{SUPERVISOR: NOBODY}) as elsewhere,
    ):
        assert found() == {lost.pid: False, ours.pid: True, by_hand.pid: None}
        stopped = leftover.stop_all(leftover.system(tmp_path, tmp_path / "x.properties"))
        assert [(one.name, one.process.pid) for one in stopped] == [("streams", lost.pid)]
        assert found() == {ours.pid: True, by_hand.pid: None}
        assert elsewhere.is_running()
