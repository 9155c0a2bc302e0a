"""The command line for a test: in a process of its own, or called in this one, which spares an interpreter's start.

A test whose point is the process (signals, what goes on until Ctrl-C, what is imported) starts one; most ask what a
command says and does, and `called` answers that through the same `main`.
`tests/acceptance/test_cli_help.py` holds the two to each other.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from upon.cli.main import main


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str
    raised: Exception | None = None
    """What would have ended the interpreter with a traceback."""


def process(*words: str, cwd: Path | None = None, timeout: float = 90.0) -> Said:
    """Run a command as a user does."""
    ran = subprocess.run(
        [Path(sys.executable).with_name("upon"), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Said(ran.returncode, ran.stdout, ran.stderr)


def called(*words: str, cwd: Path | None = None) -> Said:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or os.getcwd()),
        mock.patch.dict(os.environ),  # `--home` before the command sets UPON_HOME
        mock.patch.object(sys, "argv", ["upon", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            return Said(int(end.code or 0), out.getvalue(), err.getvalue())
        except Exception as error:
            return Said(1, out.getvalue(), err.getvalue(), error)


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """The environment of a user who has set nothing of Upon's but `values`, at a terminal of 120 columns."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("UPON_")}
    with mock.patch.dict(os.environ, others | {"COLUMNS": "120"} | values, clear=True):
        yield
