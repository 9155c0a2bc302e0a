"""The CLI without a system: help, versions, and errors before anything answers."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import called, environment, process
from upon import __version__
from upon.cli.main import COMMANDS
from upon.errors import UponError


@pytest.fixture(autouse=True)
def a_user_who_has_set_nothing() -> Iterator[None]:
    with environment():
        yield


@functools.cache
def help_of(*words: str) -> str:
    said = called(*words, "--help")
    assert said.returncode == 0, words
    return said.stdout


@functools.cache
def subcommands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, _, _ in COMMANDS:
        listed = help_of(name)
        block = re.search(r"─ Commands ─.*?╰", listed, re.DOTALL)
        found += [(name, word) for word in re.findall(r"^│ ([\w-]+)", block[0], re.MULTILINE)] if block else [(name,)]
    return found


def test_every_command_has_an_example_in_its_help() -> None:
    commands = subcommands()
    assert len(commands) >= 20
    for words in commands:
        assert "Example: " in help_of(*words), words
        assert "--home" in help_of(*words) or words[-1] == "check", words


def test_listings_have_json() -> None:
    for words in subcommands():
        if words[-1] in ("list", "show", "tail", "check", "status"):
            assert "--json" in help_of(*words), words


def test_the_overview_shows_all_commands_in_panels() -> None:
    said = called("--help").stdout
    assert re.findall(r"─ (\w+) ─", said) == ["Options", "Run", "Look", "Author", "Repair"]
    for name, _, _ in COMMANDS:
        assert f"│ {name} " in said


def test_starting_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom upon.cli.main import build\nbuild()\n"
        "print([m for m in ('aiohttp', 'pydantic', 'rich.table', 'kafka', 'sqlalchemy', 'cloudpickle', 'upon.config') "
        "if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_version() -> None:
    assert called("--version").stdout == f"upon {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [("tasks", "list"), ("events", "publish", "--type", "x"), ("invoke", "f"), ("sites", "list"), ("events", "tail")],
)
def test_without_a_system_the_remedy_is_named(tmp_path: Path, words: tuple[str, ...]) -> None:
    with environment(UPON_HOME=str(tmp_path)):
        said = called(*words)
        raised = called("--debug", *words).raised
    assert said.returncode == 1
    assert said.stdout == ""
    assert f"{tmp_path}/profile.json is not there; start a system with `upon up`" in said.stderr
    assert called(*words, "--home", str(tmp_path)).stderr == said.stderr
    assert called("--home", str(tmp_path), *words).stderr == said.stderr
    assert isinstance(raised, UponError)


def test_a_process_says_what_a_call_says(tmp_path: Path) -> None:
    with environment(UPON_HOME=str(tmp_path)):
        for words in (("tasks", "list"), ("tasks", "list", "--help")):
            assert process(*words) == called(*words)
        assert process("tasks", "lits").returncode == 2
        assert "Traceback" in process("--debug", "tasks", "list").stderr


def test_a_wrong_command_is_a_usage_error() -> None:
    for words in (("tasks", "lits"), ("nothing",), ("tasks", "list", "--status", "odd"), ("part", "nothing")):
        assert called(*words).returncode == 2, words


def test_a_damaged_profile_is_named(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("{")
    with environment(UPON_HOME=str(tmp_path)):
        said = called("tasks", "list")
    assert said.returncode == 2
    assert f"{tmp_path}/profile.json" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_closed_pipe_is_no_error() -> None:
    said = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m upon --help | true; exit 0"], capture_output=True, text=True, check=True
    )
    assert "Traceback" not in said.stderr


def test_a_shell_completes_commands() -> None:
    """As the script asks that `upon --install-completion` writes."""

    def completed(*words: str) -> list[str]:
        environment = os.environ | {"_UPON_COMPLETE": "complete_bash", "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run(
            [Path(sys.executable).parent / "upon"], env=environment | {"COMP_WORDS": " ".join(words)},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.stdout.split()

    assert set(completed("upon", "dea")) == {"deadletters"}
    assert {"list", "retry", "drop"} <= set(completed("upon", "deadletters", ""))
