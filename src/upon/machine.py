"""What the machine refuses, in words: no room, no right to write, no descriptors. Pure.

An OSError of these kinds is no fault of Upon and none of the user's input: the message names the file and what to do.
Not here: errors that a part expects and handles itself.
"""

from __future__ import annotations

import errno
import os

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
