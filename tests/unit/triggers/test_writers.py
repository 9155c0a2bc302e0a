"""Who has a file open for writing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
