"""Which files count, and what is there: file name patterns, walking a folder, and doing so beside other work.

A name is *ignored* when a part of its path below the folder matches a glob of `ignore`; it must also match one of
`patterns`, when there are any. A glob with a slash is matched against the whole path below the folder.
"""

from __future__ import annotations

import os
import queue
import re
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from fnmatch import translate

from upon.triggers.readiness import Stamp

IGNORED = (".*", "*.part", "*.tmp")
"""Names of files that are still being made, by custom: hidden, partial, temporary."""


class Names:
    """Decides by its name whether a file counts.

    Args:
        folder: absolute path of the watched folder.
        patterns: globs, one of which a file must match; none: all do.
        ignore: globs that no part of a path may match.
    """

    def __init__(self, folder: str, patterns: Sequence[str] = (), ignore: Sequence[str] = IGNORED) -> None:
        self._folder = folder.rstrip("/") + "/"
        self._wanted = _Globs(patterns) if patterns else None
        self._ignored = _Globs(ignore)

    def wants(self, path: str) -> bool:
        """Return whether the file at this absolute path counts."""
        below = self._below(path)
        return bool(below) and not self._ignores(below) and (self._wanted is None or self._wanted.match(below))

    def enters(self, path: str) -> bool:
        """Return whether files in the folder at this absolute path may count."""
        below = self._below(path)
        return not below or not self._ignores(below)

    def _below(self, path: str) -> str:
        return path[len(self._folder) :] if path.startswith(self._folder) else ""

    def _ignores(self, below: str) -> bool:
        return self._ignored.match(below) or any(self._ignored.match_name(part) for part in below.split("/"))


class _Globs:
    def __init__(self, globs: Sequence[str]) -> None:
        names = [translate(glob) for glob in globs if "/" not in glob]
        paths = [translate(glob.lstrip("/")) for glob in globs if "/" in glob]
        self._names = re.compile("|".join(names)) if names else None
        self._paths = re.compile("|".join(paths)) if paths else None

    def match_name(self, name: str) -> bool:
        return self._names is not None and self._names.match(name) is not None

    def match(self, below: str) -> bool:
        if self._paths is not None and self._paths.match(below) is not None:
            return True
        return self.match_name(below.rpartition("/")[2])


def look(path: str, *, inode: bool) -> Stamp | None:
    """Return the stamp of a regular file; None if it is not there, or something else.

    Args:
        inode: whether the inode is part of it.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino if inode else 0, found.st_ctime_ns)


def walk(folder: str, names: Names, *, recursive: bool, inode: bool) -> Iterator[tuple[str, Stamp]]:
    """Yield every file that counts, with its stamp. Symbolic links to folders are not followed.

    Raises:
        OSError: `folder` itself cannot be read; one below it that cannot is passed over.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = list(os.scandir(here))
        except OSError:
            if here == folder:
                raise
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if recursive and names.enters(entry.path):
                    waiting.append(entry.path)
            elif names.wants(entry.path) and (stamp := look(entry.path, inode=inode)) is not None:
                yield entry.path, stamp


Found = list[tuple[str, Stamp]]
SLICE = 200
"""Files that a scan hands over at once: some ms of work for who takes them."""
SLICES_AHEAD = 16
"""Slices that may wait; the walk then waits for them to be taken."""


class Scan:
    """One walk through a folder in a thread of its own; what it finds is taken in slices.

    Args:
        files: the walk.
        known: paths of which it shall say whether they are missing.
        wake: called when there is something to take.

    Attributes:
        missing: once it has ended: those of `known` that are not there.
        empty: once it has ended: nothing of `known` is there, or nothing was known.
    """

    def __init__(self, files: Iterator[tuple[str, Stamp]], known: Collection[str], wake: Callable[[], None]) -> None:
        self.missing: set[str] = set()
        self.empty = False
        self._files, self._known, self._wake = files, known, wake
        self._slices: queue.Queue[Found | OSError | None] = queue.Queue(SLICES_AHEAD)
        self._stopped = False
        threading.Thread(target=self._run, name="scan", daemon=True).start()

    def take(self) -> Found | None:
        """Return what was found since the last call, at most a slice of it; None: the scan has ended.

        Raises:
            OSError: the folder cannot be read.
        """
        try:
            found = self._slices.get_nowait()
        except queue.Empty:
            return []
        if isinstance(found, OSError):
            raise found
        return found

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return not self._slices.empty()

    def stop(self) -> None:
        """Let the walk end early; nothing is taken any more."""
        self._stopped = True
        while self.waiting:
            self._slices.get_nowait()

    def _run(self) -> None:
        there: set[str] = set()
        part: Found = []
        try:
            for path, stamp in self._files:
                there.add(path)
                part.append((path, stamp))
                if len(part) >= SLICE:
                    self._put(part)
                    part = []
                if self._stopped:
                    return
        except OSError as error:
            self._put(error)
            return
        self.missing = set(self._known) - there
        self.empty = len(self.missing) == len(self._known)
        self._put(part)
        self._put(None)

    def _put(self, found: Found | OSError | None) -> None:
        while not self._stopped:
            try:
                self._slices.put(found, timeout=0.5)
                break
            except queue.Full:
                continue
        self._wake()
