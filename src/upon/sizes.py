"""Amounts of memory as people write them: ``512MB``, ``64 GiB``, a number of bytes. In code they are bytes, an int."""

from __future__ import annotations

from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

from upon.errors import InputError

_size = TypeAdapter(ByteSize)


class SizeError(InputError, ValueError):
    """Not an amount of memory. (A ValueError as well, so that a pydantic validator reports it at its field.)"""


def parse_size(value: Any) -> int:
    """Return bytes.

    Args:
        value: a number of bytes, or a number and a unit: KB, MB, GB, TB (of 1000), KiB, MiB, GiB, TiB (of 1024).

    Raises:
        SizeError: something else, or negative.
    """
    try:
        if not isinstance(value, bool) and (size := int(_size.validate_python(value))) >= 0:
            return size
    except ValidationError:
        pass
    raise SizeError(f"memory is a number of bytes, or one with a unit such as 512MB or 4GiB, not {value!r}")
