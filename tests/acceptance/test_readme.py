"""The README's tour, command by command, and its Python, against a running system."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.systems import System, wait_for

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.partition("  #")[0].strip()
    for language, block in BLOCKS
    if language == "sh"
    for line in block.splitlines()
    if not line.startswith("make ")
]
ENDLESS = ("upon watch", "upon events tail")
"""Commands that go on until Ctrl-C: they run beside the others, as in a second terminal."""
ELSEWHERE = ("upon up", "upon down")
"""What the fixture `system` has done already, or will do."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tour is taken: a folder with the examples, as in a clone."""
    folder = tmp_path_factory.mktemp("tour")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


def _environment(system: System, folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"UPON_HOME": str(system.home), "PATH": path, "PWD": str(folder)}


def _run(command: list[str], system: System, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=_environment(system, folder), capture_output=True, text=True, check=False, timeout=90
    )


def _newest_task(system: System, folder: Path) -> str:
    listing = _run(["upon", "tasks", "list", "--json"], system, folder)
    return str(json.loads(listing.stdout)[0]["id"])


def test_the_tour(system: System, folder: Path) -> None:
    done, endless = [], []
    try:
        for command in COMMANDS:
            if command.startswith(ELSEWHERE):
                continue
            if command.startswith(ENDLESS):
                endless.append((command, _start(command, system, folder)))
            else:
                command_now = re.sub(r"\bID\b", lambda _: _newest_task(system, folder), command)
                ran = _run(["sh", "-c", command_now], system, folder)
                assert ran.returncode == 0, f"$ {command}\n{ran.stdout}{ran.stderr}"
            done.append(command)
        assert len(done) >= 16
        assert (folder / "scan.thumb.png").stat().st_size > 1000, "the function has run by hand"
        made = folder / "incoming" / "scan.thumb.png"
        wait_for(lambda: made.exists() and made.stat().st_size > 1000, "that the rule ran it on the file")
    finally:
        for _, process in endless:
            process.send_signal(signal.SIGINT)
        said = {command: (process.communicate(timeout=60), process.returncode) for command, process in endless}
    assert [code for _, code in said.values()] == [0] * len(endless), said
    assert "scan.tif" in said["upon watch ./incoming"][0][0]


def _start(command: str, system: System, folder: Path) -> subprocess.Popen[str]:
    """Start a command that goes on, and wait until it is connected to the system."""
    process = subprocess.Popen(
        shlex.split(command), cwd=folder, env=_environment(system, folder), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: psutil.Process(process.pid).net_connections(), f"$ {command} is connected")
    return process


def test_the_python(system: System, folder: Path) -> None:
    (block,) = [block for language, block in BLOCKS if language == "python"]
    ran = _run([sys.executable, "-c", block], system, folder)
    assert ran.returncode == 0, ran.stderr


def test_the_rules(system: System, folder: Path) -> None:
    (block,) = [block for language, block in BLOCKS if language == "yaml"]
    (folder / "readme.yaml").write_text(block)
    ran = _run(["upon", "rules", "check", "readme.yaml"], system, folder)
    assert ran.returncode == 0, ran.stderr
    assert yaml.safe_load(block)["rules"][0]["name"] == "thumbnail-of-each-image"
