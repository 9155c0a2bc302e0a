"""The pages docs/sdk.md and docs/rest.md, block by block, against a running system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.systems import System

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


def run(command: list[str], system: System) -> None:
    environment = os.environ | {"UPON_HOME": str(system.home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_of_the_sdk_page(system: System, tmp_path: Path) -> None:
    """One program, from the first block to the last, as a reader would type it."""
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks("sdk.md", "python")))
    run([sys.executable, str(program)], system)


def test_the_commands_of_the_rest_page(system: System) -> None:
    run(["sh", "-euc", "\n".join(blocks("rest.md", "sh"))], system)
