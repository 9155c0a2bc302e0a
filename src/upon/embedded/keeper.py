"""The keeper: a tiny process that outlives a killed supervisor just long enough to stop what it had started.

It reads `+PGID` and `-PGID` lines on its standard input. When that ends, the supervisor is gone: stopped in order
(then no group is left) or killed (then all groups are told to end, and those that do not are killed).
Deliberately without any import of Upon: it must cost next to no memory and cannot fail to start.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE = 3.0
"""Seconds that a group has between SIGTERM and SIGKILL."""


def _signal(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS: a group of zombies only
        return False
    return True


def main() -> None:
    """Follow standard input to its end, then stop every group that is still named."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    groups = {group for group in groups if _signal(group, signal.SIGTERM)}
    deadline = time.monotonic() + GRACE
    while groups and time.monotonic() < deadline:
        time.sleep(0.05)
        groups = {group for group in groups if _signal(group, 0)}
    for group in groups:
        _signal(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
