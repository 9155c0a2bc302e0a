"""The name of code: the same for the same code, whoever pickles it; another for other code."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.code_hash import OPERATIONS, code_hash
from upon.serialize import dump_function

MODULE = '''
"""A module."""
import enum
import math

MANY = {str(i) for i in range(2500)}
LIMITS = {"value": 3, "a b": [1, 2]}

def size(by="value"):
    return LIMITS[by] in {"p", "q", "r", "s"}, 3

class Kind:
    """A kind, which travels by value."""
    def same(self, other):
        return super().__eq__(other) or isinstance(other, Kind)

class Colour(enum.Enum):
    RED = 1

def helper(x, name="value", kind=Kind):
    """Help."""
    assert kind().same(Kind()) and x not in {("a", 1), ("b", frozenset("abc"))}, MANY
    return {"value": x, "a b": [name, "value"], "s": x in {"p", "q", "r", "s"}, "t": size()}

def work(x):
    """Work."""
    return helper(math.sqrt(x))["value"], "a b", "hello world", (lambda y: y in {"k", "l", "m"})(x), b"raw", b"raw"
'''
PICKLE = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import cloudpickle, module
from upon.code_hash import code_hash
cloudpickle.register_pickle_by_value(module)
body = cloudpickle.dumps(module.work, protocol=5)
print(code_hash(body), hashlib.sha256(body).hexdigest())
"""


def _pickled(folder: Path, seed: str) -> tuple[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ran = subprocess.run(
        [sys.executable, "-c", PICKLE, str(folder)],
        env=environment | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    name, raw = ran.stdout.split()
    return name, raw


def test_neither_compiled_files_nor_hash_seeds_change_the_name(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    found = [_pickled(tmp_path, str(seed)) for seed in range(6)]
    assert len({raw for _, raw in found}) > 1, "the pickles differ: else this tests nothing"
    assert len({name for name, _ in found}) == 1


def test_comments_and_empty_lines_do_not_change_the_name(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    before = _pickled(tmp_path, "0")
    edited = MODULE.replace("def size", "# A comment, and\n\n\n# another\ndef size").replace(
        "    return helper", "    # so\n    return helper"
    )
    (tmp_path / "module.py").write_text(edited)
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    after = _pickled(tmp_path, "0")
    assert before[0] == after[0]
    assert before[1] != after[1], "the lines did not move: this tests nothing"


HOSTILE = {
    "marks and items": b"(" * 80_000 + b"\x90" * 80_000 + b".",
    "tuples, deep": b"(" * 80_000 + b"t" * 80_000 + b".",
    "lists, deep": b"(" * 80_000 + b"l" * 80_000 + b".",
    "one string, often": b"X\x40\x42\x0f\x00" + b"s" * 1_000_000 + b"q\x00" + b"h\x00" * 90_000 + b".",
    "a long number": b"\x8b\x00\x09\x3d\x00" + b"\x77" * 4_000_000 + b".",
    "many operations": b"N" + b"2" * 15_000_000 + b".",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=list(HOSTILE))
def test_time_is_linear_whatever_the_bytes(body: bytes) -> None:
    begin = time.thread_time()
    code_hash(body)
    assert time.thread_time() - begin < 10, "seconds, of this thread alone; it took more than a minute"


def test_other_code_has_another_name(tmp_path: Path) -> None:
    names = set()
    for change in (
        ("", ""), ('"hello world"', '"hello"'), ("}, 3", "}, 4"), ('"r", "s"}', '"s"}'), ("sqrt", "cbrt"),
         ('"k", "l"', '"k", "z"'), ("[1, 2]", "[2, 1]"), ('b"raw", b"raw"', 'b"raw", b"war"'), ("2500", "2501"),
         ("super().__eq__(other)", "self is other"), ('("a", 1)', '("a", 2)'), ('frozenset("abc")', 'frozenset("abd")'),
    ):  # fmt: skip
        folder = tmp_path  # its path is part of the code, which can read `__file__`
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        (folder / "module.py").write_text(MODULE.replace(*change))
        names.add(_pickled(folder, "0")[0])
    assert len(names) == 12


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.frozensets(st.text(max_size=3), max_size=4)
    ),
    max_leaves=8,
)


@given(values, values)
def test_equal_names_mean_equal_values(a: object, b: object) -> None:
    same = code_hash(pickle.dumps(a)) == code_hash(pickle.dumps(b))
    assert not same or repr(_sorted(a)) == repr(_sorted(b))


def _sorted(value: object) -> object:
    if isinstance(value, frozenset):
        return ["set", *sorted(value)]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(_sorted, value)]
    return value


@given(st.lists(st.text(max_size=3), max_size=6))
def test_sharing_of_strings_does_not_matter(texts: list[str]) -> None:
    shared = {text: text for text in texts}
    apart = [("x" + text)[1:] for text in texts]
    assert code_hash(pickle.dumps([shared[text] for text in texts])) == code_hash(pickle.dumps(apart))


@given(st.binary(max_size=100))
def test_what_is_no_pickle_has_a_name_too(body: bytes) -> None:
    assert len(code_hash(body)) == 64


def test_one_of_very_many_operations_is_named_by_its_bytes() -> None:
    body = pickle.dumps(list(range(OPERATIONS)))
    assert code_hash(body) == hashlib.sha256(body).hexdigest()


def test_all_protocols_are_read() -> None:
    for protocol in range(2, 6):
        assert code_hash(pickle.dumps(["a", ("a", 1), ["a"]], protocol)) != code_hash(pickle.dumps(["b"], protocol))
    assert code_hash(dump_function(lambda: 1)) != code_hash(dump_function(lambda: 2))
