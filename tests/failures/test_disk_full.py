"""The home's disk fills while tasks run, parts die meanwhile, and there is room again: all mends itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.systems import System, wait_for
from upon import Executor


def test_a_full_disk(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=256m", str(small_disk)], check=True)  # room for a whole system
    system = System(small_disk / "home", small_disk)
    system.run("up", "--detach", "--workers", "1", timeout=150)
    fill = small_disk / "fill"
    try:
        with Executor(home=system.home) as executor:
            assert executor.submit(pow, 2, 3).result(timeout=60) == 8
            _fill(fill)
            meanwhile = executor.submit(pow, 2, 4)
            system.kill("service")
            wait_for(lambda: system.status()["parts"]["kafka"]["state"] == "down", "that Kafka is seen to be gone", 90)
            shown = system.run("status", check=False)
            assert shown.returncode == 1
            assert "the disk of" in shown.stdout
            assert "is full" in shown.stdout
            assert "kafka is down" in shown.stdout
            fill.unlink()
            wait_for(lambda: system.status()["state"] == "up", "all up again, by itself", 120)
            assert meanwhile.result(timeout=60) == 16
            assert executor.submit(pow, 2, 5).result(timeout=60) == 32
        assert json.loads((system.home / "run" / "state.json").read_text())["parts"]["service"]["restarts"] >= 1
    finally:
        fill.unlink(missing_ok=True)
        system.run("down")


def _fill(file: Path) -> None:
    """Write until nothing more goes on the disk, to the last byte."""
    with file.open("wb", buffering=0) as filling:
        for size in (1_000_000, 4096, 1):
            try:
                while True:
                    filling.write(b"x" * size)
            except OSError:
                continue
