"""Functions as source text: rebuilt, they do the same, in this Python and in another one."""

from __future__ import annotations

import asyncio
import functools
import linecache
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from upon.source_form import NotAsSource, dumps

SCALE = 3


def scaled(x: int) -> int:
    return x * SCALE


def factorial(n: int) -> int:
    return 1 if n < 2 else n * factorial(n - 1)


def even(n: int) -> bool:
    return True if n == 0 else odd(n - 1)


def odd(n: int) -> bool:
    return False if n == 0 else even(n - 1)


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> tuple[str, Any]:
        return "traced", function(*args, **kwargs)

    return around


@traced
def decorated(a: int, b: str = "x", /, *rest: int, c: tuple[int, ...] = (1,), **more: int) -> tuple[Any, ...]:
    """What it does."""
    try:
        return scaled(a), b, rest, c, more, math.sqrt(4), [i for i in range(a) if i]
    except (ValueError, TypeError) as error:
        raise RuntimeError from error


def adder(n: int) -> Callable[[int], int]:
    def add(m: int) -> int:
        return n + m if m else add(n)

    return add


async def later(x: int) -> set[Any]:
    await asyncio.sleep(0)
    return {x, "a"}


def counted() -> int:
    global SCALE  # noqa: PLW0603
    SCALE += 1
    return scaled(1)


class Held:
    pass


def uses_a_class() -> object:
    return Held()


def raises() -> None:
    raise ValueError("here")


pair = (lambda x: x + 1, lambda x, *, y=4:
        x * y)  # fmt: skip


def again(function: Callable[..., Any]) -> Callable[..., Any]:
    data, _ = dumps(function)
    assert b"CodeType" not in data
    found: Callable[..., Any] = pickle.loads(data)
    return found


@pytest.mark.parametrize(
    ("function", "args", "value"),
    [
        (scaled, (2,), 6),
        (factorial, (5,), 120),
        (even, (10,), True),
        (adder(2), (0,), 4),
        (pair[0], (1,), 2),
        (pair[1], (2,), 8),
        (lambda x: [x, SCALE], (1,), [1, 3]),
        (decorated, (2, "y", 7), ("traced", (6, "y", (7,), (1,), {}, 2.0, [1]))),
        (counted, (), 4),
    ],
)
def test_it_does_the_same(function: Callable[..., Any], args: tuple[Any, ...], value: Any) -> None:
    found = again(function)
    assert found(*args) == value
    assert (found.__name__, found.__qualname__, found.__doc__) == (
        function.__name__,
        function.__qualname__,
        function.__doc__,
    )
    assert SCALE == 3, "its globals are its own"


def test_a_coroutine() -> None:
    assert asyncio.run(again(later)(1)) == {1, "a"}


def test_a_traceback_has_its_lines() -> None:
    with pytest.raises(ValueError, match="here") as caught:
        again(raises)()
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (__file__, raises.__code__.co_firstlineno + 1)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (uses_a_class, "the class Held, which travels"),
        (eval("lambda: 1"), "is not to be had"),
    ],
)
def test_what_cannot_go_so_is_named(function: Callable[..., Any], why: str) -> None:
    with pytest.raises(NotAsSource, match=why):
        dumps(function)


def by_value(value: Any, name: str | None = None) -> bool:
    return getattr(value, "__module__", "builtins") != __name__


@pytest.fixture(autouse=True)
def _this_module_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upon.source_form.inner._should_pickle_by_reference", by_value)


def module(path: Path, text: str) -> ModuleType:
    path.write_text(text)
    found = ModuleType(__name__)
    found.__file__ = str(path)
    exec(compile(text, str(path), "exec"), vars(found))
    return found


def test_a_file_that_was_edited_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    function = module(path, "def work(x):\n    return x + 1\n").work
    assert again(function)(1) == 2
    path.write_text("def work(x):\n    return x + 2\n")
    linecache.checkcache(str(path))
    with pytest.raises(NotAsSource, match="was the file edited"):
        dumps(function)


def test_syntax_that_the_other_python_lacks_is_noticed(tmp_path: Path) -> None:
    function = module(tmp_path / "mine.py", "def work(x):\n    match x:\n        case 1: return 2\n").work
    assert dumps(function, ["3.11"])
    with pytest.raises(NotAsSource, match=r"written for a newer Python than 3\.9"):
        dumps(function, ["3.9", "3.11"])


def test_names_that_a_class_hides_do_not_go(tmp_path: Path) -> None:
    text = "class A:\n    def work(self):\n        return self.__x\n"
    with pytest.raises(NotAsSource):
        dumps(module(tmp_path / "mine.py", text).A.work)


def test_the_compiler_sees_what_the_file_imports(tmp_path: Path) -> None:
    text = "import math\nfrom os import path as p\ndef work(x):\n    return math.sqrt(x), p.join('a', 'b')\n"
    assert again(module(tmp_path / "mine.py", text).work)(4) == (2.0, "a/b")
