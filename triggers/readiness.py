"""When is a file ready? A pure decision, fed with notifications, looks at files, and the time.

    closed(path, stamp)   a writer closed it                → ready (closed), unless another is seen to have it open;
                                                              then that one's close will come. With `quiet`: a
                                                              candidate, to be judged once it stood still for `quiet`
    moved(path, stamp)    it was renamed into place         → ready (moved), likewise
    seen(path, stamp)     a scan came by it                 → a candidate, if this version is new: to be judged once it
                                                              stood still for `settle`
    judged(path, stamp)   it was due, and looked at again   → ready (found: it was there at the start; settled: it came
                                                              later), unless it changed, is being written, or only
                                                              its time was set
    created(path)         its creation was notified, so     → a candidate must stand still LOST times longer
                          its close will be too
    gone(path)            it is not there                   → nothing; its version is remembered for long

Guarantee: one `Ready` for each version of a path, in whatever order, and however often, all this is told: a
notification is a hint that may come late, several times or never, and a version told twice is dropped here.

A *version* is what `stat` says of the content: size, modification time and inode. A file that is closed again
unchanged is the same version; one that was appended to or overwritten is another. On network file systems the inode
is left out, because a mount may number files anew. A modification time that was set by hand after the content was
complete (`cp -p`, `shutil.copy2`, `rsync -t`) makes no new version: see `same_content`. Two contents of equal size
written within one tick of the file system's clock (some ms) into the same inode cannot be told apart; nor can they be
by anyone else who asks `stat`.

Not here: I/O, file names that are ignored (`scanning`), whether anyone writes (`writers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Literal

Reason = Literal["closed", "moved", "settled", "found"]

LOST = 60
"""How many times longer a file must stand still whose close ought to be notified."""
REMEMBER = 30 * 86_400.0
"""Seconds that the version of a file is remembered after it is gone: a mount may come back, files with it."""
TOUCHED_UP_NS = 10_000_000_000
"""So long after its last write a file's times may be set for that to be the end of one copy, when nobody watched."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What `stat` says of a file's content: size in bytes, modification time in ns, inode (0: left out).

    `ctime_ns`, when anything of the file last changed, tells a time set by hand from a write; it is no part of a
    version.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int = field(default=0, compare=False)

    @property
    def version(self) -> str:
        """The version as events name it."""
        return f"{self.size}-{self.mtime_ns}" + (f"-{self.inode}" if self.inode else "")


def stamp_of(version: str) -> Stamp:
    """Return the stamp that `Stamp.version` names.

    Raises:
        ValueError: it names none.
    """
    # A time before 1970 is negative, so its sign stands beside the separator.
    size, _, rest = version.partition("-")
    sign = -1 if rest.startswith("-") else 1
    mtime, _, inode = rest.removeprefix("-").partition("-")
    return Stamp(int(size), sign * int(mtime), int(inode or 0))


def same_content(known: Stamp, found: Stamp, *, notified: bool) -> bool:
    """Return whether `found` is the content of `known` whose modification time alone was set, by hand.

    A write sets modification and change time alike, to now: never to before the last write, never past the change.

    Args:
        known: the version that was announced.
        found: the file as it is.
        notified: writes are notified, and none was; else only a time set within 10 s after the last write is believed.
    """
    if (known.size, known.inode) != (found.size, found.inode):
        return False
    by_hand = found.mtime_ns < known.mtime_ns or found.mtime_ns > found.ctime_ns
    return by_hand and (notified or found.ctime_ns - known.mtime_ns <= TOUCHED_UP_NS)


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
    wait: float
    notified: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """The version of a path that was announced, and as which version the same content is seen since."""

    announced: str
    seen: str

    @classmethod
    def parse(cls, text: str) -> Known:
        """Read what `text` returned."""
        announced, _, seen = text.partition("=")
        return cls(announced, seen or announced)

    @property
    def text(self) -> str:
        """As the checkpoint has it: ``announced`` or ``announced=seen``."""
        return self.announced if self.seen == self.announced else f"{self.announced}={self.seen}"


class Readiness:
    """The files of one source.

    Args:
        settle: seconds that a file of unknown story must stand still.
        known: by path, the `text` of what was announced before.
        quiet: seconds that a file must stand still after its close; 0: it is ready at once.
        remember: seconds for which the version of a file that is gone is remembered.
    """

    def __init__(
        self, settle: float, known: Mapping[str, str], *, quiet: float = 0.0, remember: float = REMEMBER
    ) -> None:
        self.settle, self.quiet, self.remember = settle, quiet, remember
        self.known = {path: Known.parse(text) for path, text in known.items()}
        self._candidates: dict[str, _Candidate] = {}
        self._dues: list[tuple[float, str]] = []  # a heap; a candidate may be due later than it says, never sooner
        self._awaited: set[str] = set()
        self._missing: dict[str, float] = {}

    def closed(self, path: str, stamp: Stamp, now: float, *, written: bool = False) -> Ready | None:
        """Take in that a writer closed the file; `written`: another has it open still."""
        return self._ended(path, stamp, now, "closed", written=written)

    def moved(self, path: str, stamp: Stamp, now: float, *, written: bool = False) -> Ready | None:
        """Take in that the file was renamed to `path`; `written`: somebody has it open still."""
        return self._ended(path, stamp, now, "moved", written=written)

    def created(self, path: str) -> None:
        """Take in that a file appears under the eyes of the notifications: they will tell of its close."""
        self._awaited.add(path)

    def seen(self, path: str, stamp: Stamp, now: float, *, first: bool = False, notified: bool = False) -> None:
        """Take in that a scan came by the file.

        Args:
            now: a monotonic time, s.
            first: this is the scan at the start.
            notified: every write since the file was announced has been notified, or is about to be.
        """
        self._missing.pop(path, None)
        known = self.known.get(path)
        if known is not None and known.seen == stamp.version:
            self._forget_candidate(path)
            return
        candidate = self._candidates.get(path)
        if candidate is None:
            reason: Reason = "found" if first else "settled"
            self._wait_for(path, _Candidate(stamp, now, reason, self.settle, notified))
            return
        candidate.notified &= notified
        if candidate.stamp != stamp:
            candidate.stamp, candidate.since = stamp, now
            if candidate.reason == "found":
                candidate.reason = "settled"

    def judged(self, path: str, stamp: Stamp, now: float, *, written: bool) -> Ready | Known | None:
        """Take in a second look at a candidate that was due.

        Args:
            now: a monotonic time, s.
            written: somebody has it open for writing, so it cannot be complete.

        Returns:
            The file if it is ready; what is known of it from now on if only its time was set, by hand; else None.
        """
        if (candidate := self._candidates.get(path)) is not None:
            self.seen(path, stamp, now, notified=candidate.notified)
        if candidate is None or path not in self._candidates:
            return None
        if written:
            candidate.since, candidate.reason = now, "settled"
        if now < self._due(path, candidate):
            self._wait_for(path, candidate)
            return None
        known = self.known.get(path)
        if known is not None and same_content(stamp_of(known.seen), stamp, notified=candidate.notified):
            self._forget_candidate(path)
            self.known[path] = Known(known.announced, stamp.version)
            return self.known[path]
        return self._complete(path, stamp, candidate.reason)

    def gone(self, path: str, now: float) -> None:
        """Take in that the file is not there."""
        self._forget_candidate(path)
        if path in self.known:
            self._missing.setdefault(path, now)

    def away(self, now: float) -> None:
        """Take in that nothing of what is known is there: a mount is away, and no file is gone for that."""
        self._missing = dict.fromkeys(self._missing, now)

    def forgettable(self, now: float) -> list[str]:
        """Forget, and return, the paths that are gone for long."""
        old = [path for path, since in self._missing.items() if now - since >= self.remember]
        for path in old:
            del self._missing[path], self.known[path]
        return old

    def ignore(self, files: Iterable[tuple[str, Stamp]]) -> dict[str, str]:
        """Take files as they are for announced; return what to remember of them."""
        taken = {path: Known(stamp.version, stamp.version) for path, stamp in files}
        self.known.update(taken)
        return {path: known.text for path, known in taken.items()}

    def due(self, now: float, limit: int = 1_000_000) -> list[str]:
        """Return the paths that should have stood still for long enough; each is to be `judged`, or told `gone`."""
        paths: dict[str, None] = {}
        while len(paths) < limit and (next_due := self.next_due()) is not None and next_due <= now:
            paths[heappop(self._dues)[1]] = None
        return list(paths)

    def next_due(self) -> float | None:
        """Return when there will be something due, on the clock of `now`; None: nothing is waited for."""
        while self._dues:
            at, path = self._dues[0]
            candidate = self._candidates.get(path)
            if candidate is not None and (due := self._due(path, candidate)) <= at:
                return due
            heappop(self._dues)
            if candidate is not None:
                heappush(self._dues, (due, path))
        return None

    def _wait_for(self, path: str, candidate: _Candidate) -> None:
        self._candidates[path] = candidate
        heappush(self._dues, (self._due(path, candidate), path))

    def _due(self, path: str, candidate: _Candidate) -> float:
        return candidate.since + candidate.wait * (LOST if path in self._awaited else 1)

    def _ended(self, path: str, stamp: Stamp, now: float, reason: Reason, *, written: bool) -> Ready | None:
        known = self.known.get(path)
        if not (written or self.quiet) or (known is not None and known.seen == stamp.version):
            return self._complete(path, stamp, reason)
        if written:
            self._awaited.add(path)  # whoever writes will close it
        else:
            self._awaited.discard(path)
        self._missing.pop(path, None)
        wait = self.settle if written else self.quiet
        self._wait_for(path, _Candidate(stamp, now, "settled" if written else reason, wait))
        return None

    def _complete(self, path: str, stamp: Stamp, reason: Reason) -> Ready | None:
        self._missing.pop(path, None)
        self._forget_candidate(path)
        known = self.known.get(path)
        if known is not None and known.seen == stamp.version:
            return None
        self.known[path] = Known(stamp.version, stamp.version)
        return Ready(path, stamp, reason)

    def _forget_candidate(self, path: str) -> None:
        self._candidates.pop(path, None)
        self._awaited.discard(path)
