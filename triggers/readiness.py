"""When is a file ready? A pure decision, fed with notifications, looks at files, and the time.

    closed(path, stamp)   a writer closed it                → ready (closed)
    moved(path, stamp)    it was renamed into place         → ready (moved)
    seen(path, stamp)     a scan came by it                 → a candidate, if this version is new: to be judged once it
                                                              stood still for `settle`
    judged(path, stamp)   it was due, and looked at again   → ready (found: it was there at the start; settled: it came
                                                              later), unless it changed or is being written
    created(path)         its creation was notified, so     → a candidate must stand still LOST times longer
                          its close will be too
    gone(path)            it is not there                   → nothing; its version is remembered for a day

Guarantee: one `Ready` for each version of a path, in whatever order, and however often, all this is told: a
notification is a hint that may come late, several times or never, and a version told twice is dropped here.

A *version* is what `stat` says of the content: size, modification time and inode. A file that is closed again
unchanged is the same version; one that was appended to or overwritten is another. On network file systems the inode
is left out, because a mount may number files anew. Two contents of equal size written within one tick of the file
system's clock (some ms) into the same inode cannot be told apart; nor can they be by anyone else who asks `stat`.

Not here: I/O, file names that are ignored (`scanning`), whether anyone writes (`writers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Reason = Literal["closed", "moved", "settled", "found"]

LOST = 60
"""How many times longer a file must stand still whose close ought to be notified."""
REMEMBER = 86_400.0
"""Seconds that the version of a file is remembered after it is gone: a mount may come back, files with it."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What `stat` says of a file's content: size in bytes, modification time in ns, inode (0: left out)."""

    size: int
    mtime_ns: int
    inode: int

    @property
    def version(self) -> str:
        """The version as events name it."""
        return f"{self.size}-{self.mtime_ns}" + (f"-{self.inode}" if self.inode else "")


@dataclass(frozen=True, slots=True)
class Ready:
    """A version of a file is complete."""

    path: str
    stamp: Stamp
    reason: Reason


@dataclass(slots=True)
class _Candidate:
    stamp: Stamp
    since: float
    reason: Reason


class Readiness:
    """The files of one source.

    Args:
        settle: seconds that a file of unknown story must stand still.
        known: versions by path that were emitted before.
    """

    def __init__(self, settle: float, known: Mapping[str, str]) -> None:
        self.settle = settle
        self.versions = dict(known)
        self._candidates: dict[str, _Candidate] = {}
        self._awaited: set[str] = set()
        self._missing: dict[str, float] = {}

    def closed(self, path: str, stamp: Stamp) -> Ready | None:
        """Take in that a writer closed the file."""
        return self._complete(path, stamp, "closed")

    def moved(self, path: str, stamp: Stamp) -> Ready | None:
        """Take in that the file was renamed to `path`."""
        return self._complete(path, stamp, "moved")

    def created(self, path: str) -> None:
        """Take in that a file appears under the eyes of the notifications: they will tell of its close."""
        self._awaited.add(path)

    def seen(self, path: str, stamp: Stamp, now: float, *, first: bool = False) -> None:
        """Take in that a scan came by the file.

        Args:
            now: a monotonic time, s.
            first: this is the scan at the start.
        """
        self._missing.pop(path, None)
        if self.versions.get(path) == stamp.version:
            self._candidates.pop(path, None)
            self._awaited.discard(path)
            return
        candidate = self._candidates.get(path)
        if candidate is None:
            self._candidates[path] = _Candidate(stamp, now, "found" if first else "settled")
        elif candidate.stamp != stamp:
            candidate.stamp, candidate.since, candidate.reason = stamp, now, "settled"

    def judged(self, path: str, stamp: Stamp, now: float, *, written: bool) -> Ready | None:
        """Take in a second look at a candidate that was due.

        Args:
            now: a monotonic time, s.
            written: somebody has it open for writing, so it cannot be complete.
        """
        self.seen(path, stamp, now)
        candidate = self._candidates.get(path)
        if candidate is None:
            return None
        if written:
            candidate.since, candidate.reason = now, "settled"
        if now < self._due(path, candidate):
            return None
        return self._complete(path, stamp, candidate.reason)

    def gone(self, path: str, now: float) -> None:
        """Take in that the file is not there."""
        self._candidates.pop(path, None)
        self._awaited.discard(path)
        if path in self.versions:
            self._missing.setdefault(path, now)

    def forgettable(self, now: float) -> list[str]:
        """Forget, and return, the paths that are gone for long."""
        old = [path for path, since in self._missing.items() if now - since >= REMEMBER]
        for path in old:
            del self._missing[path], self.versions[path]
        return old

    def due(self, now: float) -> list[str]:
        """Return the paths to look at again: they should have stood still for long enough."""
        return [path for path, candidate in self._candidates.items() if now >= self._due(path, candidate)]

    def next_due(self) -> float | None:
        """Return when there will be something due, on the clock of `now`; None: nothing is waited for."""
        return min((self._due(path, candidate) for path, candidate in self._candidates.items()), default=None)

    def _due(self, path: str, candidate: _Candidate) -> float:
        return candidate.since + self.settle * (LOST if path in self._awaited else 1)

    def _complete(self, path: str, stamp: Stamp, reason: Reason) -> Ready | None:
        self._missing.pop(path, None)
        self._candidates.pop(path, None)
        self._awaited.discard(path)
        if self.versions.get(path) == stamp.version:
            return None
        self.versions[path] = stamp.version
        return Ready(path, stamp, reason)
