"""A value's repr, shortened for people: cheap for big values, safe with a broken `__repr__`."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

LENGTH = 200
"""Characters of a preview at most."""
BIG = 64 * 1024
"""Bytes of the serialized value past which no foreign `__repr__` is called."""

_SHORT = frozenset({type(None), bool, float})


class _Preview(reprlib.Repr):
    """`reprlib` without what takes long: it sorts dicts and sets, and prints bytes and objects whole."""

    def __init__(self, *, call_repr: bool) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = LENGTH
        self.maxlevel = 4
        self._call_repr = call_repr

    def _some(self, values: Iterable[Any], count: int, level: int, limit: int) -> str:
        shown = [self.repr1(value, level - 1) for value in islice(values, limit)] if level > 0 else ["..."]
        return ", ".join(shown if level <= 0 or count <= limit else [*shown, "..."])

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}" if x else "{}"
        pairs = [f"{self.repr1(k, level - 1)}: {self.repr1(v, level - 1)}" for k, v in islice(x.items(), self.maxdict)]
        return "{" + ", ".join(pairs if len(x) <= self.maxdict else [*pairs, "..."]) + "}"

    def repr_set(self, x: set[Any], level: int) -> str:
        return "{" + self._some(x, len(x), level, self.maxset) + "}" if x else "set()"

    def repr_frozenset(self, x: frozenset[Any], level: int) -> str:
        return f"frozenset({self.repr_set(set(islice(x, self.maxset + 1)), level) if x else ''})"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x[:LENGTH]) if len(x) <= LENGTH else f"{x[: LENGTH // 4]!r}... {len(x):,} bytes"

    def repr_bytearray(self, x: bytearray, level: int) -> str:
        return f"bytearray({self.repr_bytes(bytes(x[: LENGTH + 1]), level)})"

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 1000 else f"<int of {x.bit_length():,} bits>"

    def repr_instance(self, x: Any, level: int) -> str:
        kind = type(x).__qualname__
        try:
            if not self._call_repr:
                shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
                return f"<{kind} shape={shape} dtype={dtype}>" if shape is not None else f"<{kind}>"
            return repr(x)
        except BaseException as error:
            return f"<{kind} (its __repr__ raised {type(error).__name__})>"


_small = _Preview(call_repr=True)
_big = _Preview(call_repr=False)


def preview(value: Any, size: int) -> str:
    """Return a short text for a value.

    Args:
        value: anything.
        size: bytes of the value when serialized; a big one's own `__repr__` is not called.

    Returns:
        At most `LENGTH` characters. Never raises.
    """
    if type(value) in _SHORT:
        return repr(value)
    try:
        text = (_small if size <= BIG else _big).repr(value)
    except BaseException as error:
        text = f"<{type(value).__qualname__} ({type(error).__name__} in its repr)>"
    text = text.encode("utf-8", "backslashreplace").decode()  # lone surrogates do not travel
    return text if len(text) <= LENGTH else text[: LENGTH - 3] + "..."
