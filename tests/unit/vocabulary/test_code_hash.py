"""The name of code: the same for the same code, whoever pickles it; another for other code."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from upon.code_hash import LARGEST, code_hash
from upon.serialize import dump_function

MODULE = '''
"""A module."""
import math

LIMITS = {"value": 3, "a b": [1, 2]}

def size(by="value"):
    return LIMITS[by] in {"p", "q", "r", "s"}, 3

def helper(x, name="value"):
    """Help."""
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


def test_other_code_has_another_name(tmp_path: Path) -> None:
    names = set()
    for change in (
        ("", ""), ('"hello world"', '"hello"'), ("}, 3", "}, 4"), ('"r", "s"}', '"s"}'), ("sqrt", "cbrt"),
         ('"k", "l"', '"k", "z"'), ("[1, 2]", "[2, 1]"), ('b"raw", b"raw"', 'b"raw", b"war"')
    ):  # fmt: skip
        folder = tmp_path  # its path is part of the code: tracebacks name it
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        (folder / "module.py").write_text(MODULE.replace(*change))
        names.add(_pickled(folder, "0")[0])
    assert len(names) == 8


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


def test_a_large_one_is_named_by_its_bytes() -> None:
    body = pickle.dumps(b"x" * LARGEST)
    assert code_hash(body) == hashlib.sha256(body).hexdigest()


def test_all_protocols_are_read() -> None:
    for protocol in range(2, 6):
        assert code_hash(pickle.dumps(["a", ("a", 1), ["a"]], protocol)) != code_hash(pickle.dumps(["b"], protocol))
    assert code_hash(dump_function(lambda: 1)) != code_hash(dump_function(lambda: 2))
