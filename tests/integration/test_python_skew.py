"""A client of another minor version of Python than the workers: a second interpreter, with what the SDK needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.systems import System

ROOT = Path(__file__).parents[2]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHERS = [one for one in ("3.13", "3.12", "3.11", "3.14") if one != HERE]


def interpreters() -> list[str]:
    """Return what may be another Python: pyenv's own, and whatever uv finds under a version's number."""
    pyenv = Path.home() / ".pyenv" / "versions"
    own = [str(found) for one in OTHERS for found in sorted(pyenv.glob(f"{one}.*/bin/python"))]
    return own + OTHERS


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of another Python with what the SDK needs; Upon itself it takes from here."""
    uv, place = Path(sys.prefix) / "bin" / "uv", tmp_path_factory.mktemp("other") / "venv"
    if not uv.exists():
        missing(f"{uv} is not there (it is in locks/dev.txt), which makes an environment with another Python")
    python, said = str(place / "bin" / "python"), "none was found"
    for one in interpreters():
        commands = (
            ("venv", "--quiet", "--clear", "--no-python-downloads", "--python", one, str(place)),
            ("pip", "install", "--quiet", "--python", python, "-r", str(ROOT / "pyproject.toml")),
        )
        for command in commands:
            done = subprocess.run([str(uv), *command], capture_output=True, text=True, check=False, timeout=120)
            if done.returncode:
                said = done.stderr.strip()[-500:]
                break
        else:
            return python
    missing(f"no other Python ({', '.join(OTHERS)}) with the packages that the SDK needs can be had here: {said}")
    raise AssertionError


def run(system: System, python: str, folder: Path, text: str) -> str:
    program = folder / "program.py"
    program.write_text(text)
    environment = os.environ | {"UPON_HOME": str(system.home), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([python, program], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


RUNS = """
import asyncio, math, sys
from upon import AsyncClient, Client, Executor

SCALE = 3

def root(x):
    return math.sqrt(x) * SCALE

def work(x, *, y=2):  # a comment
    return root(x) + y, list(sys.version_info[:2])

def adder(n):
    def add(m):
        return n + m
    return add

def fails():
    raise LookupError("over there")

with Executor() as executor:
    value, there = executor.submit(work, 4).result(60)
    assert value == 8.0 and there != list(sys.version_info[:2]), there
    assert list(executor.map(lambda x: x * SCALE, range(100))) == [3 * n for n in range(100)]
    assert executor.submit(adder(5), 6).result(60) == 11
    assert executor.submit(math.sqrt, 4).result(60) == 2
    error = executor.submit(fails).exception(60)
    assert type(error) is LookupError and 'raise LookupError("over there")' in str(error.__cause__), error.__cause__
with Client() as client:
    assert client.register(work, "skew.work").python == ""
    assert client.register(work, "skew.work").version == 1
    assert client.invoke("skew.work", 9).result(60)[0] == 11

async def main():
    async with AsyncClient() as client:
        assert (await (await client.submit(work, 16, y=0)))[0] == 12.0
asyncio.run(main())
print("fine")
"""


def test_functions_travel_as_source_text(system: System, other: str, tmp_path: Path) -> None:
    assert run(system, other, tmp_path, RUNS) == "fine\n"


REFUSED = """
from upon import Executor

class Held:
    def twice(self):
        return 2

def work():
    return Held().twice()

with Executor() as executor:
    for call in ((work,), (map, lambda x: x, [1]), (abs, Held())):
        try:
            executor.submit(*call)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
    try:
        executor.map(work, [])
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_what_cannot_is_refused_at_submit_with_both_versions(system: System, other: str, tmp_path: Path) -> None:
    said = run(system, other, tmp_path, REFUSED).splitlines()
    assert len(said) == 4
    code = rf"FunctionError: work is byte code of Python 3\.\d+, and the workers run Python {re.escape(HERE)}; it does"
    assert re.match(code + ".*because it uses the class Held", said[0])
    assert re.match(code, said[3])
    for line in said[1:3]:
        assert re.match(rf"InputError: the arguments of (map|abs) hold .* 3\.\d+, .* run Python {HERE}", line), line
