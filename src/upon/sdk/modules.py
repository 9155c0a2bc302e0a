"""Which modules travel with a function: those that a worker elsewhere would not have.

A module stays (is imported again at the worker) if it is built in, belongs to the standard library, stands under a
site-packages folder, is no Python file, or is Upon's own. All others, a script's neighbours or a test module,
travel: cloudpickle is told to pickle them by value, in this process, for good. A module that a function imports inside
itself does not travel; `stays_behind` names those that a worker will not have.
"""

from __future__ import annotations

import dis
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType

import cloudpickle

from upon.locks import lock

_IMPORT = dis.opmap["IMPORT_NAME"]
_lock = lock()
_seen: set[str] = set()
_travelling: list[bytes] = []
_count = 0


def travelling() -> list[bytes]:
    """Return the names of the modules that travel, as they stand in a pickle; modules imported since are looked at."""
    global _count  # noqa: PLW0603
    if len(sys.modules) == _count:
        return _travelling
    with _lock:
        _count = len(sys.modules)
        for name, module in list(sys.modules.items()):
            if name in _seen or getattr(getattr(module, "__spec__", None), "_initializing", False):
                continue
            _seen.add(name)
            if isinstance(module, ModuleType) and module.__name__ == name and travels(module):
                cloudpickle.register_pickle_by_value(module)
                _travelling.append(name.encode())
    return _travelling


def stays_behind(functions: Iterable[FunctionType]) -> list[tuple[str, str, str]]:
    """Return the modules that functions import inside themselves and that a worker will not have.

    Returns:
        For each: the module, the function that imports it, and that one's file:line.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for function in functions:
        where = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
        for name in _imports(function.__code__):
            if name not in found and not _is_at_workers(name):
                found[name] = (name, function.__qualname__, where)
    return list(found.values())


def _imports(code: CodeType) -> Iterator[str]:
    """Yield the modules that code imports by their whole names."""
    if _IMPORT in code.co_code[::2]:
        for instruction in dis.get_instructions(code):
            if instruction.opcode == _IMPORT:
                yield str(instruction.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _imports(inner)


def _is_at_workers(name: str) -> bool:
    """Tell whether a module is installed here, or belongs to Python: one that is not here at all is not."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("", "upon"):  # relative ones are told by their package
        return True
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        spec = None
    place = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    return place is not None and (place in ("built-in", "frozen") or _stays(place))


def _stays(file: str) -> bool:
    path = os.path.realpath(file)
    return "site-packages" in path or "dist-packages" in path or path.startswith(_installed())


def travels(module: ModuleType) -> bool:
    """Tell whether a module has to travel with what uses it."""
    name, file = module.__name__, getattr(module, "__file__", None)
    if name.partition(".")[0] in ("upon", "__main__", "__mp_main__"):  # cloudpickle takes __main__ by value anyway
        return False
    if not isinstance(file, str) or not file.endswith(".py"):
        return False
    return not _stays(file)


@cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(sorted({os.path.realpath(folder) + os.sep for folder in folders}))
