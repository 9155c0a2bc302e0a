"""Damaged jars are seen: missing, empty, cut short, altered within."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from upon.embedded.broker import jars


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "a-1.0.jar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A.class", bytes(range(256)) * 40)
        archive.writestr("B.class", b"b" * 9000)
    return path


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jar: Path) -> Path:
    monkeypatch.setenv("UPON_CACHE", str(tmp_path))
    file = jars.manifest_file()
    file.write_text(json.dumps({"jars": [[str(jar), jar.stat().st_size]]}))
    return file


def test_a_whole_jar(jar: Path) -> None:
    assert jars.fault(jar) is None
    assert jars.deep_fault(jar) is None


def test_missing(tmp_path: Path) -> None:
    assert "No such file" in (jars.fault(tmp_path / "none.jar") or "")


def test_empty(jar: Path) -> None:
    jar.write_bytes(b"")
    assert jars.fault(jar) == "has 0 bytes"


def test_cut_short(jar: Path) -> None:
    jar.write_bytes(jar.read_bytes()[:-30])
    assert "cut short" in (jars.fault(jar) or "")
    assert "cut short" in (jars.deep_fault(jar) or "")


def test_another_size(jar: Path) -> None:
    size = jar.stat().st_size
    assert jars.fault(jar, size) is None
    assert jars.fault(jar, size + 1) == f"has {size} bytes, not {size + 1}"


def test_altered_within(jar: Path) -> None:
    data = bytearray(jar.read_bytes())
    data[60] ^= 0xFF
    jar.write_bytes(data)
    assert jars.fault(jar) is None
    assert "damaged" in (jars.deep_fault(jar) or "")


def test_the_manifest_names_the_class_path(manifest: Path, jar: Path) -> None:
    assert jars.are_there()
    assert jars.class_path() == [jar]


@pytest.mark.parametrize("text", ["", "[]", '{"jars": 3}', '{"jars": [["x"]]}', "\x00"])
def test_a_damaged_manifest_counts_as_none(manifest: Path, text: str) -> None:
    manifest.write_text(text)
    assert not jars.are_there()


def test_a_damaged_jar_spoils_the_manifest(manifest: Path, jar: Path) -> None:
    jar.write_bytes(jar.read_bytes()[:-1])
    assert not jars.are_there()


def test_forgotten(manifest: Path) -> None:
    jars.forget()
    jars.forget()
    assert not jars.are_there()


def test_other_jgo_settings_have_another_manifest(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2_REPO", "/elsewhere")
    assert jars.manifest_file() != manifest
