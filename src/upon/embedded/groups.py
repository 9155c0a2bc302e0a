"""The process groups that a supervisor has started, told to its keeper, and to another keeper if that one dies."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path


class Groups:
    """The supervisor's end of the keeper's standard input (`keeper`)."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._keeper = _start()

    @property
    def keeper(self) -> int:
        """The keeper's process id."""
        return self._keeper.pid

    def add(self, group: int) -> None:
        """Name a group that must not outlive the supervisor."""
        self._known.add(group)
        self._tell(f"+{group}\n")

    def discard(self, group: int) -> None:
        """Forget a group that has ended: its number may be another's soon."""
        self._known.discard(group)
        self._tell(f"-{group}\n")

    def check(self) -> bool:
        """Start another keeper if this one is gone; return whether it was.

        Raises:
            OSError: no process can be started now.
        """
        if self._keeper.poll() is None:
            return False
        with contextlib.suppress(OSError):  # what it was not told any more
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
        self._keeper = _start()
        self._tell("".join(f"+{group}\n" for group in self._known))
        return True

    def close(self) -> None:
        """Let the keeper end, and wait until it has: it stops the groups that are still named."""
        assert self._keeper.stdin is not None
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()
        self._keeper.wait()

    def _tell(self, lines: str) -> None:
        assert self._keeper.stdin is not None
        with contextlib.suppress(OSError):  # it is gone: `check` tells its successor all there is
            self._keeper.stdin.write(lines)
            self._keeper.stdin.flush()


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("keeper.py"))],
        stdin=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
