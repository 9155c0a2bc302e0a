"""What a task may ask for beside a worker: checked alike in SDK, CLI, service, rules and dispatchers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from upon.errors import InputError
from upon.messages import Invocation, Resources
from upon.sizes import parse_size

MOST = 1 << 20
"""Cores or accelerators of a task, at most, and tasks that a limit lets be."""
MOST_MEMORY = 1 << 50
"""Bytes of memory of a task, at most."""
HIGHEST = 1000
"""The highest priority; the lowest is minus that."""
NAMES = 8
"""Limits that a task may name."""
NAME_LENGTH = 200


def resources(cores: Any = 1, memory: Any = 0, accelerators: Any = 0) -> Resources | None:
    """Return what a task is to have for itself; None: a worker and a core, as every task.

    Args:
        cores: how many, ≥ 1.
        memory: bytes, or text such as ``4GB``; 0 = not bounded.
        accelerators: how many.

    Raises:
        InputError: a number is none, or out of range.
    """
    asked = Resources(
        cores=_count("cores", cores, 1, MOST),
        memory=_count("memory", parse_size(memory), 0, MOST_MEMORY),
        accelerators=_count("accelerators", accelerators, 0, MOST),
    )
    return None if asked == Resources() else asked


def priority(value: Any) -> int:
    """Return a priority. Raises InputError unless it is a whole number from -1000 to 1000."""
    return _count("priority", value, -HIGHEST, HIGHEST)


def limits(value: Mapping[str, Any]) -> dict[str, int]:
    """Return limits: names, each with how many tasks that name it may be at a site's managers at once.

    Raises:
        InputError: too many, or one is none.
    """
    if len(value) > NAMES:
        raise InputError(f"limits: {len(value)} names, the most are {NAMES}")
    for name in value:
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH:
            raise InputError(f"limits: a name has 1 to {NAME_LENGTH} characters, not {str(name)[:100]!r}")
    return {name: _count(f"limits[{name}]", most, 1, MOST) for name, most in value.items()}


def check(invocation: Invocation) -> None:
    """Raise InputError if an invocation asks for what cannot be."""
    if (asked := invocation.resources) is not None:
        resources(asked.cores, asked.memory, asked.accelerators)
    if invocation.priority:
        priority(invocation.priority)
    if invocation.limits:
        limits(invocation.limits)


def _count(what: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{what}: a whole number from {least:,} to {most:,}, not {value!r}")
    return value
