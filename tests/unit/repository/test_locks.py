"""The locks are in step with pyproject.toml, agree with each other, name no registry, and are what everything uses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
LOCKS = {"dev": ["dev"], "demo": ["demo"], "image": ["sources", "streams", "endpoint", "postgres"]}
REMEDY = "`make lock` brings the locks in step with pyproject.toml"


def declared(extras: list[str]) -> list[Requirement]:
    """What pyproject.toml asks for with these extras: our own extras inside them followed, and what builds Upon."""
    found = [
        Requirement(text) for text in (*PYPROJECT["project"]["dependencies"], *PYPROJECT["build-system"]["requires"])
    ]
    for extra in extras:
        for requirement in map(Requirement, EXTRAS[extra]):
            found += declared(sorted(requirement.extras)) if requirement.name == "upon" else [requirement]
    return found


def locked(name: str) -> dict[str, list[str]]:
    """Package → its versions in this lock (more than one where Pythons or platforms differ)."""
    versions: dict[str, list[str]] = {}
    for package, version in re.findall(
        r"^(\S+)==([^\s;]+)", (ROOT / "locks" / f"{name}.txt").read_text(), re.MULTILINE
    ):
        versions.setdefault(canonicalize_name(package.partition("[")[0]), []).append(version)
    return versions


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_what_pyproject_asks_for(name: str) -> None:
    versions = locked(name)
    for requirement in declared(LOCKS[name]):
        held = versions.get(canonicalize_name(requirement.name), [])
        assert held, f"locks/{name}.txt lacks {requirement}: {REMEDY}"
        assert all(map(requirement.specifier.contains, held)), (
            f"locks/{name}.txt has {held} for {requirement}: {REMEDY}"
        )


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_nothing_for_what_pyproject_no_longer_asks_for(name: str) -> None:
    # Each entry says who asks for it: uv writes "via upon (pyproject.toml)" (or ":build"), or the package that does.
    entries = re.split(r"^(?=\S+==)", (ROOT / "locks" / f"{name}.txt").read_text(), flags=re.MULTILINE)[1:]
    asked = {canonicalize_name(re.split(r"==|\[", entry)[0]) for entry in entries if "pyproject.toml" in entry}
    assert asked == {canonicalize_name(requirement.name) for requirement in declared(LOCKS[name])}, REMEDY


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_has_hashes_and_none_an_address(name: str) -> None:
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    entries = re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    assert "--extra-index" not in text


@pytest.mark.parametrize("name", ["demo", "image"])
def test_the_locks_agree(name: str) -> None:
    tested = locked("dev")
    assert all(tested.get(package) == versions for package, versions in locked(name).items()), REMEDY


def test_what_builds_upon_is_one_list() -> None:
    assert PYPROJECT["dependency-groups"]["build"] == PYPROJECT["build-system"]["requires"]


@pytest.mark.parametrize(("file", "name"), [("Makefile", "demo"), ("Makefile", "dev"), ("Dockerfile", "image")])
def test_what_installs_takes_the_lock_and_nothing_else(file: str, name: str) -> None:
    lines = (ROOT / file).read_text().replace("\\\n", "").splitlines()
    installs = [line for line in lines if re.search(r"pip install\b|\$\(PIP\)", line) and not line.startswith("#")]
    assert any(f"--require-hashes --requirement locks/{name}.txt" in line for line in installs)
    for line in installs:
        ours = "--require-hashes" in line or ("--no-deps" in line and "--no-build-isolation" in line)
        # The other installations are meant to have other versions, in environments of their own.
        assert ours or line.startswith("PIP :=") or "--resolution $(2)" in line, line


def test_every_dependency_has_a_lower_bound() -> None:
    for requirement in declared(list(EXTRAS)):
        assert any(part.operator == ">=" for part in requirement.specifier), f"{requirement} has no lower bound"
