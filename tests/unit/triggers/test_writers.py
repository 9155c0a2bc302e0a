"""Who has a file open for writing."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from upon.triggers.writers import open_for_writing


def test_a_writer_in_another_process_is_seen_and_a_reader_is_not(tmp_path: Path) -> None:
    names = ["written", "appended", "read", "closed"]
    paths = [str(tmp_path / name) for name in names]
    for path in paths:
        Path(path).write_text("x")
    code = (
        "import sys; w=open(sys.argv[1],'w'); a=open(sys.argv[2],'a'); r=open(sys.argv[3]); print(flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", code, *paths[:3]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        assert open_for_writing(paths) == set(paths[:2])
    finally:
        other.communicate(b"\n")
    assert open_for_writing(paths) == set()


def test_a_writer_comes_while_a_file_is_asked_about(tmp_path: Path) -> None:
    """The lease that is the question holds nobody up, and its signal does no harm."""
    path = tmp_path / "a"
    path.write_text("x")
    code = "import sys\nfor _ in range(2000): open(sys.argv[1], 'a').close()\n"
    other = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while other.poll() is None:
        open_for_writing([str(path)])
    assert other.returncode == 0


def test_a_pipe_does_not_hold_it_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert open_for_writing([str(tmp_path / "pipe"), str(tmp_path / "gone")]) == set()


def test_a_file_of_somebody_else_is_no_error(tmp_path: Path) -> None:
    """Who owns neither the file nor the writer may not ask for a lease, and sees nobody."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody who does not own the file")
    path = tmp_path / "a"
    with path.open("w") as file:
        child = os.fork()
        if child == 0:
            os.close(file.fileno())
            os.setuid(pwd.getpwnam("nobody").pw_uid)
            os._exit(bool(open_for_writing([str(path)])))
        assert os.waitpid(child, 0)[1] == 0
        assert open_for_writing([str(path)]) == {str(path)}
