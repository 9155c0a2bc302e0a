from __future__ import annotations

import os
import py_compile
import sys
from pathlib import Path

import pytest

from upon import serialize
from upon.errors import FunctionError
from upon.sdk.functions import code_of
from upon.sdk.loading import default_name, load


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "thumbs_of_a_test.py"
    path.write_text(
        "import neighbour_of_thumbs\nsize = 3\n\ndef make_thumbnail(x):\n    return neighbour_of_thumbs.twice(x)\n\n"
        "class Maker:\n    @staticmethod\n    def make(x):\n        return x\n"
    )
    (tmp_path / "neighbour_of_thumbs.py").write_text("def twice(x):\n    return 2 * x\n")
    return path


def test_a_file_with_its_neighbours(file: Path) -> None:
    function = load(f"{file}:make_thumbnail")
    assert function(4) == 8
    assert serialize.load_function(code_of(function).body)(4) == 8
    assert load(f"{file}:Maker.make")(3) == 3
    assert default_name(f"{file}:make_thumbnail") == "thumbs_of_a_test.make_thumbnail"


def test_a_file_called_like_a_module_does_not_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def f():\n    return 1\n")
    before = sys.modules.get("json")
    assert load(f"{tmp_path}/json.py:f")() == 1
    assert sys.modules.get("json") is before


def test_a_file_that_was_changed_in_the_second_in_which_it_was_compiled(file: Path) -> None:
    """Python would take what it compiled before: the size is the same too."""
    file.write_text("def f():\n    return 1\n")
    then = file.stat().st_mtime_ns
    py_compile.compile(str(file))
    file.write_text("def f():\n    return 2\n")
    os.utime(file, ns=(then, then))
    assert load(f"{file}:f")() == 2


def test_a_module() -> None:
    assert load("math:sqrt")(9) == 3
    assert default_name("math:sqrt") == "math.sqrt"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("make_thumbnial", "did you mean 'make_thumbnail'"),
        ("nothing", "it has: make_thumbnail"),
        ("size", "is a int, not a function"),
        ("Maker.mkae", "did you mean 'make'"),
    ],
)
def test_a_name_that_is_not_there(file: Path, name: str, said: str) -> None:
    with pytest.raises(FunctionError, match=said):
        load(f"{file}:{name}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", r"bad.py:1: SyntaxError"),
        ("x = 1\nimport nothing_of_the_kind\n", r"bad.py:2: ModuleNotFoundError while it was imported: No module"),
        ("def g():\n    return 1 / 0\n\ng()\n", r"bad.py:2: ZeroDivisionError while it was imported"),
        ("import sys\nsys.exit(3)\n", r"bad.py:2: SystemExit"),
    ],
)
def test_a_file_that_does_not_run(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(FunctionError, match=said):
        load(f"{tmp_path}/bad.py:f")
    assert "bad" not in sys.modules


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FunctionError, match="there is no such file"):
        load(f"{tmp_path}/none.py:f")
    with pytest.raises(FunctionError, match="there is no module 'nothing_of_the_kind'"):
        load("nothing_of_the_kind:f")
    with pytest.raises(FunctionError, match=r"write FILE.py:NAME or MODULE:NAME"):
        load("thumbs.py")
    (tmp_path / "beside.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    with pytest.raises(FunctionError, match="it defines no function"):
        load("beside:f")
