"""Load a function that a user names as ``FILE.py:NAME`` or ``MODULE:NAME``."""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from upon.errors import FunctionError


def load(reference: str) -> Callable[..., Any]:
    """Return the function that `reference` names. Runs the file or module, with its folder on `sys.path`.

    Args:
        reference: ``thumbs.py:make_thumbnail``, ``package.module:name`` or ``…:Class.method``.

    Raises:
        FunctionError: the file, the module or the name is not there, it fails to run (with the line), or the name is
            not callable.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise FunctionError(f"{reference!r}: write FILE.py:NAME or MODULE:NAME, such as thumbs.py:make_thumbnail")
    is_file = place.endswith(".py") or os.sep in place
    module = _run_file(Path(place)) if is_file else _import(place)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise FunctionError(f"{place} has no {part!r}; {_suggestion(part, found)}") from None
    if not callable(found):
        raise FunctionError(f"{reference}: is a {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def default_name(reference: str) -> str:
    """Return the name to register under if the user gives none: ``thumbs.make_thumbnail`` for the example above."""
    place, _, name = reference.rpartition(":")
    stem = Path(place).stem if place.endswith(".py") else place
    return f"{stem}.{name}"


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FunctionError(f"{path}: there is no such file{' (a folder is)' if path.is_dir() else ''}")
    path = path.resolve()
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"_file_{name}"  # a file that is called like a module must not take its place
    spec = importlib.util.spec_from_file_location(name, path, loader=_AsItStands(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise FunctionError(_story(str(path), error)) from error
    return module


class _AsItStands(importlib.machinery.SourceFileLoader):
    """Runs a file as it stands now.

    Python takes what it compiled before if the file has the same size and was changed in the same second.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import(name: str) -> ModuleType:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            hint = f"; for a file write {name}.py:…" if Path(f"{name}.py").is_file() else ""
            raise FunctionError(f"there is no module {error.name!r}{hint}") from None
        raise FunctionError(_story(name, error)) from error
    except Exception as error:
        raise FunctionError(_story(name, error)) from error


def _story(place: str, error: BaseException) -> str:
    """Return where in the user's own code the import failed, and how."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if frame.filename == place and frame.filename != __file__] or [
        frame for frame in frames if frame.filename != __file__
    ]
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else place
    return f"{where}: {type(error).__name__} while it was imported: {error}"


def _suggestion(name: str, holder: Any) -> str:
    there = [key for key, value in vars(holder).items() if callable(value) and not key.startswith("_")]
    close = difflib.get_close_matches(name, there, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    own = [key for key in there if getattr(getattr(holder, key), "__module__", None) == getattr(holder, "__name__", "")]
    return f"it has: {', '.join(own[:10])}" if own else "it defines no function"
