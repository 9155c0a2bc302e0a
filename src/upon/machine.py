"""What the machine refuses, in words: no room, no right to write, no descriptors; and the limit of open files.

An OSError of these kinds is no fault of Upon and none of the user's input: the message names the file and what to do.
Not here: errors that a part expects and handles itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

PRIVATE = 0o700
"""Mode of the home and of the folders in it: arguments, results and logs are nobody else's."""
_NO_RIGHT = "this user has no right to that: correct the owner, or choose a home elsewhere (--home DIR, UPON_HOME)"
REMEDIES = {
    errno.ENOSPC: "the disk is full: free some room, or choose a home on another disk (--home DIR, UPON_HOME)",
    errno.EDQUOT: "your disk quota is used up: free some room, or choose a home elsewhere (--home DIR, UPON_HOME)",
    errno.EROFS: "the file system is read-only: choose a home elsewhere (--home DIR, UPON_HOME)",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EMFILE: "this process has too many open files: raise the limit (`ulimit -n 4096`) and start again",
    errno.ENFILE: "the machine has too many open files: end some programs, or raise fs.file-max",
    errno.ENOMEM: "the machine is out of memory: end some programs",
    errno.EAGAIN: "no more processes can be started: raise the limit (`ulimit -u`), or end some programs",
}
"""What to do, by errno."""


def refusal(error: BaseException) -> str:
    """Return what the machine refused and what to do; empty if the error is of another kind."""
    if not isinstance(error, OSError) or error.errno not in REMEDIES:
        return ""
    what = os.fsdecode(error.filename) + ": " if isinstance(error.filename, str | bytes) else ""
    return f"{what}{REMEDIES[error.errno]}"


def descriptor_limit() -> int:
    """Return how many files this process may have open now (the soft limit)."""
    import resource  # not on Windows, where the SDK works

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit(wanted: int) -> int:
    """Let this process have so many files open, or as many as the system allows; return how many it may have now."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if descriptor_limit() < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(hard, wanted), hard)
            )
    return descriptor_limit()
