"""A function as source text: for workers of another minor version of Python, which cannot run its byte code.

    function ── its file's text ──▶ the part that defines it ──▶ compiled: the same byte code? ──▶ pickle: text and data
    pickle ──▶ text compiled by the Python that is there ──▶ function

So travel plain functions and lambdas, also nested ones with what they close over, whose globals are importable modules,
data that pickles, or other such functions. Decorators and defaults do not run again: what they made is here, as data.
Annotations are left out.

Guarantee: what is rebuilt is compiled from the text of this very function; a file that was edited since it was read is
noticed. A pickle of this form needs Upon where it is loaded, and is named by its text: comments and lines count.
Not here: classes that travel by value, and what else has byte code in it: NotAsSource says what.
"""

from __future__ import annotations
import __future__

import ast
import io
import linecache
import pickle
import symtable
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import import_module
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from cloudpickle import cloudpickle as inner

from upon.errors import FunctionError

_FUTURE = 0
for _name in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _name).compiler_flag
_NESTED = 0x10
"""CO_NESTED: where a function stands in its file, which is not what it does."""
_KEPT = ("__name__", "__package__", "__file__")
"""Globals that a function's module has whatever it names."""
_OUTER = "_upon_outer"


class NotAsSource(FunctionError):
    """A function cannot travel as source text; the message says why."""


def dumps(function: Any, pythons: Iterable[str] = ()) -> tuple[bytes, list[FunctionType]]:
    """Pickle a function with its source text in place of byte code.

    Args:
        pythons: the versions, such as ``3.11``, that are to compile it.

    Returns:
        The pickle, which `pickle.loads` reads where Upon is, and the functions in it by value, the outermost first.

    Raises:
        NotAsSource: it cannot go so.
        Exception: whatever pickling its data raised.
    """
    with io.BytesIO() as file:
        pickler = _Pickler(file, sorted(pythons))
        pickler.dump(function)
        return file.getvalue(), pickler.functions


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, pythons: list[str]) -> None:
        super().__init__(file, protocol=5)
        self.functions: list[FunctionType] = []
        self._pythons = pythons
        self._globals: dict[int, dict[str, Any]] = {}  # functions of one module share theirs

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, ModuleType):
            if not inner._should_pickle_by_reference(obj):
                raise NotAsSource(f"it uses the module {obj.__name__}, which travels with it")
            return import_module, (obj.__name__,)
        if isinstance(obj, FunctionType) and not inner._should_pickle_by_reference(obj):
            return self._function(obj)
        if isinstance(obj, type) and obj is not type(None) and not inner._should_pickle_by_reference(obj):
            if obj.__module__ == "builtins":  # such as type(...)
                return NotImplemented
            raise NotAsSource(f"it uses the class {obj.__qualname__}, which travels with it")
        return NotImplemented

    def _function(self, function: FunctionType) -> Any:
        text = text_of(function)
        for python in self._pythons:
            _check_syntax(text, function, python)
        self.functions.append(function)
        code, variables = function.__code__, function.__globals__
        shared = self._globals.setdefault(id(variables), {n: variables[n] for n in _KEPT if n in variables})
        used = {n: variables[n] for n in inner._extract_code_globals(code) if n in variables}
        closed = dict(zip(code.co_freevars, map(_contents, function.__closure__ or ()), strict=True))
        names = (code.co_name, function.__qualname__, function.__module__)
        place = (code.co_filename, code.co_firstlineno, code.co_flags & _FUTURE & ~_NESTED)
        said = (function.__name__, function.__doc__, function.__dict__)
        state = (used, closed, function.__defaults__, function.__kwdefaults__, *said)
        return rebuild, (text, names, place, code.co_freevars, shared), state, None, None, fill


def _contents(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # not bound yet
        return ()


# ── where it is loaded ────────────────────────────────────────────────────────────────────────────────────────────


def rebuild(
    text: str,
    names: tuple[str, str, str],
    place: tuple[str, int, int],
    closes_over: tuple[str, ...],
    variables: dict[str, Any],
) -> FunctionType:
    """Compile a function here; `fill` gives it its data. Raises SyntaxError: this Python cannot read it."""
    name, qualname, module = names
    code = _compiled(text, name, place, closes_over).replace(co_qualname=qualname)
    made = FunctionType(code, variables, name, None, tuple(CellType() for _ in code.co_freevars) or None)
    made.__qualname__, made.__module__ = qualname, module
    return made


def fill(function: FunctionType, state: tuple[Any, ...]) -> None:
    """Give a function its globals, its closure and its defaults."""
    used, closed, function.__defaults__, function.__kwdefaults__, function.__name__, function.__doc__, more = state
    function.__globals__.update(used)
    function.__dict__.update(more)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if closed.get(name):
            (cell.cell_contents,) = closed[name]


# ── source text ───────────────────────────────────────────────────────────────────────────────────────────────────


def text_of(function: FunctionType) -> str:
    """Return the text that defines a function, a lambda's without what stands around it. Raises NotAsSource."""
    code = function.__code__
    source = "".join(linecache.getlines(code.co_filename, function.__globals__))
    where = f"{code.co_qualname} ({code.co_filename}:{code.co_firstlineno})"
    if not source:
        raise NotAsSource(f"the source text of {where} is not to be had")
    for text in _candidates(source, code.co_name, code.co_firstlineno):
        place = (code.co_filename, code.co_firstlineno, code.co_flags & _FUTURE & ~_NESTED)
        try:
            if _same(_compiled(text, code.co_name, place, code.co_freevars, _imported(source)), code):
                return text
        except (SyntaxError, ValueError, IndexError):
            continue
    raise NotAsSource(f"the source text of {where} does not give its byte code by itself (was the file edited?)")


@lru_cache(maxsize=16)
def _parsed(source: str) -> dict[tuple[str, int], list[ast.AST]]:
    found: dict[tuple[str, int], list[ast.AST]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            found.setdefault((node.name, first), []).append(node)
        elif isinstance(node, ast.Lambda):
            found.setdefault(("<lambda>", node.lineno), []).append(node)
    return found


@lru_cache(maxsize=16)
def _imported(source: str) -> tuple[str, ...]:
    """Return the names that a file imports at its top: the compiler looks whether a name is one of them."""
    table = symtable.symtable(source, "", "exec")
    return tuple(one.get_name() for one in table.get_symbols() if one.is_imported())


def _candidates(source: str, name: str, line: int) -> Iterator[str]:
    try:
        nodes = _parsed(source).get((name, line), [])
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in nodes:
        padded = not isinstance(node, ast.Lambda)
        if text := ast.get_source_segment(source, node, padded=padded):
            yield text


def _compiled(
    text: str, name: str, place: tuple[str, int, int], closes_over: tuple[str, ...], imported: tuple[str, ...] = ()
) -> CodeType:
    """Return the code of a function from its text, as in a file that imports these names."""
    file, line, flags = place
    indented = text[:1] in (" ", "\t")
    node: Any
    if name == "<lambda>":
        node = ast.parse(f"({text}\n)").body[0].value  # type: ignore[attr-defined]
    else:
        node = ast.parse(f"if 1:\n{text}" if indented else text).body[0]
        node = node.body[0] if indented else node
        node.decorator_list, node.returns = [], None
        node.type_params = []
    given = node.args
    given.defaults, given.kw_defaults = [], [None] * len(given.kwonlyargs)
    for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
        if one is not None:
            one.annotation = None
    module = ast.parse("")
    if name == "<lambda>" or closes_over:
        (outer,) = ast.parse(f"def {_OUTER}({', '.join(closes_over)}): pass").body
        assert isinstance(outer, ast.FunctionDef)
        outer.body = [ast.Return(node)] if name == "<lambda>" else [node, ast.Return(ast.Name(name, ast.Load()))]
        module.body = [outer]
    else:
        module.body = [node]
    ast.fix_missing_locations(ast.increment_lineno(module, line - node.lineno))
    if imported:
        module.body.insert(0, ast.Import([ast.alias(one) for one in imported]))
        ast.fix_missing_locations(module)
    found: Any = compile(module, file, "exec", flags=flags, dont_inherit=True)
    for wanted in (name,) if module.body[-1] is node else (_OUTER, name):
        found = next(one for one in found.co_consts if isinstance(one, CodeType) and one.co_name == wanted)
    assert isinstance(found, CodeType)
    return found


_PARTS = (
    *("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_name"),
    *("co_argcount", "co_kwonlyargcount", "co_posonlyargcount"),
)


def _same(one: CodeType, other: CodeType) -> bool:
    """Tell whether two codes do the same: all but their places and what they are called."""
    if any(getattr(one, part) != getattr(other, part) for part in _PARTS):
        return False
    if (one.co_flags ^ other.co_flags) & ~_NESTED or len(one.co_consts) != len(other.co_consts):
        return False
    for a, b in zip(one.co_consts, other.co_consts, strict=True):
        if isinstance(a, CodeType) and isinstance(b, CodeType):
            if not _same(a, b):
                return False
        elif type(a) is not type(b) or (repr(a) != repr(b) and a != b):
            return False
    return True


def _check_syntax(text: str, function: FunctionType, python: str) -> None:
    """Raise NotAsSource if an older Python cannot read the text, as far as that can be told here."""
    major, _, minor = python.partition(".")
    version = (int(major), int(minor))
    try:
        if function.__name__ == "<lambda>":
            ast.parse(f"({text}\n)", feature_version=version)
        else:
            ast.parse(f"if 1:\n{text}" if text[:1] in (" ", "\t") else text, feature_version=version)
    except SyntaxError as error:
        raise NotAsSource(f"{function.__qualname__} is written for a newer Python than {python}: {error}") from error
