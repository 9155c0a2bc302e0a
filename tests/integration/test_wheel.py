"""The wheel: it has what the parts read beside their code, and the task store opens from it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import missing

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "service" / "store" / "migrations"
OPEN = """
import pathlib, sys, upon
from upon.service.store.store import Store
store = Store("sqlite:///" + sys.argv[1])
store.open()
store.close()
print(pathlib.Path(upon.__file__).parent.parent)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves folders behind."""
    if importlib.util.find_spec("setuptools") is None:
        missing("no setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "node_modules")
    shutil.copytree(ROOT, folder / "repository", symlinks=True, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(folder / "repository")],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_it_has_the_migrations_and_the_store_opens_from_it(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        there = set(opened.namelist())
        opened.extractall(tmp_path / "installed")
    wanted = {
        f"upon/service/store/migrations/{file.relative_to(MIGRATIONS)}"
        for file in MIGRATIONS.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert len(wanted) > 2
    assert wanted <= there
    assert "upon/py.typed" in there
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path / "tasks.db")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "installed"), "not the repository's own"
    assert (tmp_path / "tasks.db").stat().st_size > 0
