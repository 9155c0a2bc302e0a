"""Which modules travel with a function: those that a worker elsewhere would not have.

A module stays (is imported again at the worker) if it is built in, belongs to the standard library, stands under a
site-packages folder, is no Python file, or is Upon's own. All others, a script's neighbours or a test module,
travel: cloudpickle is told to pickle them by value, in this process, for good.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import threading
from functools import cache
from types import ModuleType

import cloudpickle

_lock = threading.Lock()
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


def travels(module: ModuleType) -> bool:
    """Tell whether a module has to travel with what uses it."""
    name, file = module.__name__, getattr(module, "__file__", None)
    if name.partition(".")[0] in ("upon", "__main__", "__mp_main__"):  # cloudpickle takes __main__ by value anyway
        return False
    if not isinstance(file, str) or not file.endswith(".py"):
        return False
    path = os.path.realpath(file)
    if "site-packages" in path or "dist-packages" in path:
        return False
    return not path.startswith(_installed())


@cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(sorted({os.path.realpath(folder) + os.sep for folder in folders}))
