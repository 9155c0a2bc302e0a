"""docs/operations.md: its table of settings is the code's, and every command on it is one that the CLI takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.unit.repository.settings_table import PAGE, render, standing
from upon.cli.main import build
from upon.config import FOLDERS, Settings

TEXT = PAGE.read_text()
ROOT = Path(__file__).parents[3]
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if re.match(r"(UPON_\w+=\S+ )*upon ", line)
]


def test_the_table_is_that_of_the_settings() -> None:
    assert standing() == render(), "python -m tests.unit.repository.settings_table"


def test_every_variable_that_is_named_anywhere_is_on_the_page() -> None:
    sources = [path for folder in ("src/upon", "triggers", "service") for path in (ROOT / folder).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r"\bUPON_[A-Z_]+\b", path.read_text())}
    assert "UPON_CACHE" in named
    assert named - set(re.findall(r"`(UPON_[A-Z_]+)`", TEXT)) == set()


def test_every_folder_of_the_home_is_on_the_page() -> None:
    assert all(f"`{name}/" in TEXT for name in FOLDERS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_takes_it(command: str) -> None:
    words = shlex.split(command.replace("…", ""))
    while "=" in words[0]:
        name = words.pop(0).partition("=")[0]
        assert name.removeprefix("UPON_").lower() in Settings.model_fields
    assert words.pop(0) == "upon"
    found: Any = typer.main.get_command(build())
    if words == ["--install-completion"]:
        assert any("--install-completion" in parameter.opts for parameter in found.params)
        return
    context: Any = None
    while hasattr(found, "resolve_command") and words:
        context = found.make_context("upon", [], parent=context, resilient_parsing=True)
        _, next_, words = found.resolve_command(context, words)
        assert next_ is not None
        found = next_
    found.make_context("upon", words, parent=context)  # raises if an option or an argument is not one of it


def test_there_are_many() -> None:
    assert len(COMMANDS) >= 20
