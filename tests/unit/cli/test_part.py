"""`upon part`: a part whose libraries are not installed says which extra brings them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
sys.modules[sys.argv[1]] = None  # as if it were not installed
part = sys.argv[2]
sys.argv = ["upon", "part", part]
from upon.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("library", "part", "extra"),
    [("faust", "streams", "streams"), ("zmq", "dispatcher", "endpoint"), ("sqlalchemy", "service", "service")],
)
def test_a_missing_library_is_named_with_its_remedy(tmp_path: Path, library: str, part: str, extra: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, library, part], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"UPON_HOME": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert ran.returncode == 2
    assert f"the part {part} needs {library}" in ran.stderr
    assert f"upon[{extra}]" in ran.stderr
