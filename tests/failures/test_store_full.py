"""The store's disk fills: who submits is told, a result that finds no room fails its task, and then all goes on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.systems import running
from upon import Client, Executor
from upon.config import Settings
from upon.errors import StoreError
from upon.store.files import FileStore

LARGE = 30_000_000


def test_a_full_store(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["mount", "-o", "remount,size=300m", str(small_disk)], check=True)
    folder, fill = small_disk / "store", small_disk / "fill"
    monkeypatch.setenv("UPON_STORE", str(folder))
    with running(tmp_path, "--workers", "1") as system, Executor(home=system.home) as executor:
        assert executor.submit(bytes, LARGE).result(60) == bytes(LARGE)
        monkeypatch.delenv("UPON_STORE")  # the profile has it now
        assert Settings.load(system.home).store == str(folder)
        fill.write_bytes(bytes(185_000_000))
        with pytest.raises(StoreError, match=r"the arguments of len: .* cannot be written .*disk is full.*UPON_STORE"):
            executor.submit(len, bytes(LARGE))
        future = executor.submit(bytes, LARGE)
        with pytest.raises(StoreError, match=r"the result of bytes: .* cannot be written .*disk is full"):
            future.result(60)
        with Client(home=system.home) as client:
            assert client.wait(executor.submit(pow, 2, 10), 60) == 1024
            assert client.task(future.id).attempts == 1
        assert list(FileStore(folder).list()) == []
        found = system.run("doctor", check=False)
        assert found.returncode == 1
        assert f"large arguments and results in {folder}" in found.stdout
        fill.unlink()
        assert executor.submit(bytes, LARGE).result(60) == bytes(LARGE)
