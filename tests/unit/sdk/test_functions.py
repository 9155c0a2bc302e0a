from __future__ import annotations

import functools
import gc
import importlib
import linecache
import math
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon import serialize
from upon.code_hash import code_hash
from upon.errors import FunctionError, InputError, PayloadTooLarge
from upon.sdk import functions
from upon.sdk.functions import apart, code_of, description_of, name_of, pack_call, pack_chunk, source_of
from upon.sdk.modules import travels
from upon.source_text import MARK, MAX_TEXT, blocks_of, lines_of
from upon.store.payloads import Payloads, Where

NO_STORE = Payloads(lambda: Where(None))
factor = 2
lock = threading.Lock()


def scaled(x: float) -> float:
    """Return it scaled.

    More of it.
    """
    return x * factor


def uses_lock() -> object:
    return lock


def uses_uses_lock() -> object:
    return uses_lock()


class Scale:
    def __init__(self, by: float) -> None:
        self.by = by

    def scaled(self, x: float) -> float:
        return x * self.by

    def __call__(self, x: float) -> float:
        return x * self.by


def test_every_kind_of_callable_travels() -> None:
    for function, argument, value in [
        (scaled, 3, 6),
        (lambda x: x + 1, 3, 4),
        (math.sqrt, 9, 3),
        (len, "abc", 3),
        (Scale(5).scaled, 2, 10),
        (Scale(5), 2, 10),
        (functools.partial(pow, 2), 3, 8),
        (str, 3, "3"),
    ]:
        loaded = serialize.load_function(code_of(function).body)  # type: ignore[arg-type]
        assert loaded(argument) == value


def test_a_function_is_pickled_once_and_not_kept_alive() -> None:
    def inner() -> int:
        return 1

    assert code_of(inner) is code_of(inner)
    before = len(functions._cache)
    del inner
    gc.collect()
    assert len(functions._cache) == before - 1


def test_a_variable_bound_anew_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_of(scaled)
    monkeypatch.setitem(globals(), "factor", 3)
    after = code_of(scaled)
    assert after.hash != before.hash
    assert serialize.load_function(after.body)(2) == 6
    count = 1

    def closure() -> int:
        return count

    first = code_of(closure)
    count = 2
    assert serialize.load_function(code_of(closure).body)() == 2
    assert first is not code_of(closure)


def test_state_of_objects_is_never_cached() -> None:
    scale = Scale(2)
    code_of(scale.scaled)
    scale.by = 7
    assert serialize.load_function(code_of(scale.scaled).body)(1) == 7


def test_the_hash_is_of_the_content() -> None:
    assert code_of(math.sqrt).hash == code_of(math.sqrt).hash
    assert code_of(math.sqrt).hash != code_of(math.sin).hash
    assert code_of(math.sqrt).python == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_names_sources_and_descriptions() -> None:
    assert name_of(scaled) == "scaled"
    assert name_of(Scale(1).scaled) == "Scale.scaled"
    assert name_of(Scale(1)) == "Scale"
    assert name_of(functools.partial(pow, 2)) == "pow"
    assert name_of(lambda: 0) == "<lambda>"
    assert source_of(scaled).startswith("def scaled")
    assert source_of(pow) == ""
    assert description_of(scaled) == "Return it scaled."


@pytest.mark.parametrize(
    ("function", "culprit"),
    [
        (uses_lock, r"test_functions.py:\d+\).*the global 'lock', a _thread.lock.*create it inside"),
        (uses_uses_lock, r"the global 'uses_lock' → the global 'lock', a _thread.lock"),
        (functools.partial(scaled, lock), r"its argument 1, a _thread.lock"),  # type: ignore[arg-type]
        (Scale(lock).scaled, r"its object → its attribute 'by', a _thread.lock"),  # type: ignore[arg-type]
        (3, "3 is not callable"),
    ],
)
def test_what_does_not_pickle_is_named(function: object, culprit: str) -> None:
    with pytest.raises(FunctionError, match=culprit):
        code_of(function)  # type: ignore[arg-type]


def test_too_large_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "MAX_PAYLOAD", 1000)
    data = bytes(5000)
    with pytest.raises(FunctionError, match="does it use a large global"):
        code_of(lambda: data)
    with pytest.raises(PayloadTooLarge, match="the arguments of len"):
        pack_call(NO_STORE, "t", len, [bytes(17_000_000)], {})
    with pytest.raises(PayloadTooLarge, match="a smaller chunksize helps"):
        pack_chunk(NO_STORE, "t", len, [[bytes(9_000_000), bytes(9_000_001)]])


def test_a_bad_item_of_a_chunk_is_named() -> None:
    with pytest.raises(InputError, match=r"item 1 of iterable 1 of a chunk of str .a _thread.lock."):
        pack_chunk(NO_STORE, "t", str, [[1, lock]])


def test_which_modules_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "neighbour_of_a_script.py").write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert travels(importlib.import_module("neighbour_of_a_script"))
    assert travels(sys.modules[__name__])
    for name in ("math", "json", "cloudpickle", "msgspec._core", "upon.messages", "__main__", "sys"):
        assert not travels(importlib.import_module(name)), name


SCRIPT = """
import sys
import shapes
from upon import serialize
from upon.sdk.functions import code_of, pack_call
from upon.store.payloads import Payloads, Where

def area_of(shape):
    return shapes.doubled(shape.area)

shape = shapes.Square(3)
open(sys.argv[1] + "/code", "wb").write(code_of(area_of).body)
open(sys.argv[1] + "/call", "wb").write(pack_call(Payloads(lambda: Where(None)), 't', area_of, [shape], {}))
"""
NEIGHBOUR = """
class Square:
    def __init__(self, side):
        self.area = side * side

def doubled(x):
    return 2 * x
"""


def test_a_script_and_its_neighbour_run_where_they_are_not(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "shapes.py").write_text(textwrap.dedent(NEIGHBOUR))
    subprocess.run([sys.executable, str(tmp_path / "script.py"), str(tmp_path)], check=True, timeout=60)
    function = pickle.loads((tmp_path / "code").read_bytes())
    args, kwargs = serialize.unpack_call((tmp_path / "call").read_bytes())
    assert function(*args, **kwargs) == 18


WITH_A_CLASS = """
import sys
import upon.code_hash
from upon.sdk.functions import code_of

class Shape:
    sides = 4
    def area(self): return Shape.sides

def work(kind=Shape):
    return kind().area()

print(code_of(work).hash)
"""


def test_a_class_that_travels_makes_no_version_of_its_own_in_each_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    names = []
    for old, new in (("", ""), ("", ""), ("class", "# a comment\nclass"), ("sides = 4", "sides = 5")):
        script.write_text(WITH_A_CLASS.replace(old, new))
        ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
        names.append(ran.stdout)
    assert names[0] == names[1] == names[2] != names[3]


def test_instances_of_a_class_that_travels_are_of_the_class_there_and_back() -> None:
    class Shape:
        pass

    def same(shape: object) -> object:
        assert isinstance(shape, Shape)
        return Shape()

    theirs = serialize.load_function(code_of(same).body)
    args, _ = serialize.unpack_call(serialize.pack_call((Shape(),), {}))
    assert isinstance(serialize.loads(serialize.dumps(theirs(*args))), Shape)


def test_two_classes_of_one_text_are_two() -> None:
    def make() -> type:
        class Shape:
            pass

        return Shape

    one, other = make(), make()
    found = serialize.loads(serialize.dumps([one, other, one]))
    assert found[0] is found[2] is not found[1]


def test_the_source_text_travels_and_is_no_part_of_the_name(tmp_path: Path) -> None:
    bodies = [
        code_of(_from(tmp_path / "thumbs.py", text)) for text in ("return x", "return x  # a comment", "return 2")
    ]
    assert blocks_of(bodies[1].body) == {str(tmp_path / "thumbs.py"): {1: "def make(x):\n    return x  # a comment\n"}}
    assert bodies[0].hash == bodies[1].hash != bodies[2].hash
    assert bodies[0].body != bodies[1].body


def test_what_a_function_calls_of_its_file_has_its_source_text_too(tmp_path: Path) -> None:
    text = "(lambda y: [\n        inner(y) for y in (y,)])(x)\n\ndef inner(y):\n    return 1 / y"
    texts = blocks_of(code_of(_from(tmp_path / "thumbs.py", "return " + text)).body)
    assert "return 1 / y" in texts[str(tmp_path / "thumbs.py")][5]
    assert "inner(y) for y in" in texts[str(tmp_path / "thumbs.py")][1]


def test_a_file_that_was_edited_meanwhile_gives_no_wrong_lines(tmp_path: Path) -> None:
    function = _from(tmp_path / "thumbs.py", "return x")
    (tmp_path / "thumbs.py").write_text("something = 1\nelse_ = 2\n")
    linecache.clearcache()
    assert blocks_of(code_of(function).body) == {}


def test_source_text_is_bounded(tmp_path: Path) -> None:
    text = blocks_of(code_of(_from(tmp_path / "thumbs.py", f"return {'x' * MAX_TEXT!r}")).body)
    assert text == {}


def _from(file: Path, body: str) -> Callable[..., Any]:
    file.write_text(f"def make(x):\n    {body}\n")
    linecache.clearcache()
    variables: dict[str, Any] = {"__name__": "thumbs_that_nobody_imports"}
    exec(compile(file.read_text(), str(file), "exec"), variables)
    return variables["make"]  # type: ignore[no-any-return]


@given(st.binary(max_size=40))
def test_any_bytes_may_stand_where_source_text_does(data: bytes) -> None:
    for body in (data + MARK, b"N." + data + len(data).to_bytes(8, "big") + MARK):
        assert isinstance(lines_of(blocks_of(body)), dict)
        assert len(code_hash(body)) == 64
    assert lines_of({"f": {-1: "a", 0: "b", 10**12: "c"}}) == {"f": []}


def test_a_module_imported_inside_that_will_not_be_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_it.py").write_text("value = 3")
    monkeypatch.syspath_prepend(tmp_path)
    text = "import json, msgspec.json, beside_it\n    return lambda: __import__ and _inner()\ndef _inner():\n"
    function = _from(tmp_path / "thumbs.py", text + "    from no_such_module.part import thing")
    with pytest.warns(UserWarning, match="inside itself") as warned:
        code_of(function)
    texts = [str(one.message) for one in warned]
    assert len(texts) == 2
    assert f"make imports beside_it inside itself ({tmp_path / 'thumbs.py'}:1)" in texts[0]
    assert "_inner imports no_such_module.part" in texts[1]
    assert "install it at the site" in texts[1]


def test_what_workers_have_is_not_warned_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    code_of(_from(tmp_path / "thumbs.py", "import json, os.path, msgspec, upon.errors; from . import x"))
    assert not recwarn.list


class Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    def plus(self, n: int, *, twice: bool = False) -> int:
        return (self.start + n) * (2 if twice else 1)


def test_what_a_partial_or_a_method_binds_is_no_code() -> None:
    """Else each submit of one would be new code, kept by every part."""
    made = [functools.partial(functools.partial(pow, n), 3) for n in range(10)]
    assert len({code_of(apart(one, (), {})[0]).hash for one in made}) == 1
    assert apart(made[2], (7,), {}) == (pow, (2, 3, 7), {})
    plain, args, kwargs = apart(functools.partial(Counter(4).plus, twice=True), (1,), {})
    assert code_of(plain).hash == code_of(apart(Counter(5).plus, (), {})[0]).hash
    assert plain(*args, **kwargs) == 10
    assert apart(functools.partial(Counter(4).plus, twice=True), (1,), {"twice": False})[2] == {"twice": False}
    assert apart(Counter, (1,), {}) == (Counter, (1,), {})
