"""Who has a file open for writing? On Linux, /proc knows of the processes that one may look into.

It is asked only about files whose story is unknown (`readiness.seen`), before they are taken for complete: a writer
that pauses for longer than `settle` is thus not mistaken for one that has ended. A process of another user, or on
another machine, stays unseen; for those `settle` alone decides.
"""

from __future__ import annotations

import os
from collections.abc import Collection


def open_for_writing(paths: Collection[str]) -> set[str]:
    """Return those of `paths` that some process is seen to have open for writing. About 10 ms."""
    wanted: dict[str, str] = {os.path.realpath(path): path for path in paths}
    found: set[str] = set()
    try:
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return found
    for process in processes:
        try:
            descriptors = os.listdir(f"/proc/{process}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                path = wanted.get(os.readlink(f"/proc/{process}/fd/{descriptor}"))
                if path is not None and _writes(process, descriptor):
                    found.add(path)
            except OSError:
                continue
    return found


def _writes(process: str, descriptor: str) -> bool:
    with open(f"/proc/{process}/fdinfo/{descriptor}") as info:
        for line in info:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
