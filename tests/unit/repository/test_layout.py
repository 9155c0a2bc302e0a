"""The layout holds: root packages only by their full name, and a map in CONTRIBUTING that names every module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.repository import module_map

ROOT = Path(__file__).parents[3]
PACKAGES = sorted(path.name for path in (ROOT / "src" / "upon").iterdir() if path.is_symlink())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_root_package_is_refused_by_its_short_name(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {package}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"import this package as upon.{package}" in done.stderr


def test_the_map_names_every_module() -> None:
    assert module_map.standing() == module_map.render(), "python -m tests.unit.repository.module_map writes it anew"
    assert all(line.partition("` ")[2] for line in module_map.render().splitlines() if line.startswith("- `"))


def test_no_file_is_long_or_named_for_nothing() -> None:
    found = [path for folder in ("src/upon", *PACKAGES) for path in (ROOT / folder).rglob("*.py")]
    assert {path for path in found if len(path.read_text().splitlines()) > 400} == set()
    assert {path for path in found if path.stem in ("util", "utils", "helpers", "common", "misc")} == set()
