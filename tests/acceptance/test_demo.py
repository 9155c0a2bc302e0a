"""`make demo`: the main job on one machine, with real images, each processed exactly once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from upon.config import Home
from upon.embedded.state import read_state

DEMO = Path(__file__).parents[2] / "examples" / "thumbnails" / "demo.py"


def test_the_demo(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(DEMO), str(tmp_path / "demo")], capture_output=True, text=True, check=False, timeout=170
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "19 images, each processed exactly once" in ran.stdout
    assert "file complete → function started: p50" in ran.stdout
    assert len(list((tmp_path / "demo" / "incoming").glob("*.thumb.png"))) == 19
    assert read_state(Home(tmp_path / "demo" / "home")) is None
    left = [p.info for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
    assert left == [], "no process is left behind"
