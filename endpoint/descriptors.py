"""How many files a manager has open: four for each worker, so hundreds of workers need a higher limit."""

from __future__ import annotations

from upon.endpoint.forker import IN_FLIGHT
from upon.errors import ConfigError
from upon.machine import descriptor_limit, raise_descriptor_limit

EACH = 4
"""Descriptors that a worker takes of its manager."""
OTHERS = 100
"""Descriptors that a manager needs beside those, generously."""


def make_room(workers: int) -> int:
    """See that this process may have as many files open as so many workers need.

    Returns:
        The limit as it was, if it was raised: functions are to have that one. Else 0.

    Raises:
        ConfigError: the system does not allow so many.
    """
    needed, before = EACH * workers + IN_FLIGHT + OTHERS, descriptor_limit()
    if needed <= before:
        return 0
    if (limit := raise_descriptor_limit(needed)) < needed:
        most = max(1, (limit - IN_FLIGHT - OTHERS) // EACH)
        raise ConfigError(
            f"the manager of {workers} workers needs {needed} open files and the system allows it {limit}: raise the "
            f"hard limit (`ulimit -Hn {needed}`, limits.conf, LimitNOFILE), or set UPON_WORKERS to {most} or less"
        )
    return before
