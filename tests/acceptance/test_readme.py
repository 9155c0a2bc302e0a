"""The README's tour, command by command, and its Python, against a running system."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.systems import System

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.partition("  #")[0].strip()
    for language, block in BLOCKS
    if language == "sh"
    for line in block.splitlines()
    if line.startswith("upon ")
]
ENDLESS = ("upon watch", "upon events tail")
"""Commands that go on until Ctrl-C: only their help is tried here, the commands in tests of their own."""
ELSEWHERE = ("upon up", "upon down")
"""What the fixture `system` has done already, or will do."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tour is taken: a folder with the examples and an image."""
    from skimage.data import camera
    from skimage.io import imsave

    folder = tmp_path_factory.mktemp("tour")
    shutil.copytree(ROOT / "examples", folder / "examples")
    imsave(folder / "scan.tif", camera())
    return folder


def _run(command: list[str], system: System, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "UPON_HOME": str(system.home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PWD": str(folder),
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=90)


def _newest_task(system: System, folder: Path) -> str:
    listing = _run(["upon", "tasks", "list", "--json"], system, folder)
    return str(json.loads(listing.stdout)[0]["id"])


def test_the_tour(system: System, folder: Path) -> None:
    done = []
    for command in COMMANDS:
        if command.startswith(ELSEWHERE):
            continue
        if command.startswith(ENDLESS):
            words = [*shlex.split(command)[:3], "--help"] if "tail" in command else ["upon", "watch", "--help"]
            ran = _run(words, system, folder)
        else:
            ran = _run(["sh", "-c", re.sub(r"\bID$", lambda _: _newest_task(system, folder), command)], system, folder)
        assert ran.returncode == 0, f"$ {command}\n{ran.stdout}{ran.stderr}"
        done.append(command)
    assert len(done) >= 12
    assert (folder / "scan.thumb.png").stat().st_size > 1000, "the function has run"


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
