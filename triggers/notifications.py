"""What the kernel says of a folder: watchdog's inotify observer, reduced to hints for one reader.

A hint names a path and what seems to have happened to it. It may be late, repeated, or missing, and what it says may
be past already: whoever takes it looks at the file (`readiness`). Only the newest hint of a path is kept, and of at
most MAX_HINTS paths: past that they are dropped, `take` says so, and a scan must find what they would have told.

Not here: file systems whose changes are not notified; there the source polls.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Literal

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

from upon.errors import SourceError

Kind = Literal["closed", "moved", "created", "gone", "folder", "folder moved"]
MAX_HINTS = 50_000
_HEEDED: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]


class Notifications(FileSystemEventHandler):
    """Hints about a folder, while it is entered as a context.

    Args:
        folder: absolute path; hints name paths below it as it is written here.
        recursive: folders below it as well.
        wake: called when there are hints.
    """

    def __init__(self, folder: str, *, recursive: bool, wake: Callable[[], None]) -> None:
        self._folder, self._recursive, self._wake = folder, recursive, wake
        # A folder that is a symbolic link must be watched at its true place.
        self._real = os.path.realpath(folder)
        self._lock = threading.Lock()
        self._hints: dict[str, Kind] = {}
        self._overflow = False

    def __enter__(self) -> Notifications:
        """Begin to watch. Folders that are there already are watched when this returns.

        Raises:
            SourceError: the kernel refuses.
        """
        from watchdog.observers.inotify import InotifyObserver

        _pair_no_moves()
        self._observer = InotifyObserver(generate_full_events=True)
        try:
            self._observer.schedule(self, self._real, recursive=self._recursive, event_filter=_HEEDED)
            self._observer.start()
        except OSError as error:
            self._observer.on_thread_stop()
            raise SourceError(f"{self._folder}: cannot be watched: {_advice(error)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._observer.stop()
        self._observer.join(timeout=2.0)

    @property
    def alive(self) -> bool:
        """Whether watchdog's threads still run."""
        return self._observer.is_alive() and all(emitter.is_alive() for emitter in self._observer.emitters)

    def take(self) -> tuple[dict[str, Kind], bool]:
        """Return the hints since the last call, oldest first, and whether some were dropped."""
        with self._lock:
            hints, overflow = self._hints, self._overflow
            self._hints, self._overflow = {}, False
        return hints, overflow

    def dispatch(self, event: FileSystemEvent) -> None:
        """Take in a notification (called by watchdog)."""
        source, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
        match event:
            case FileClosedEvent():
                self._hint(source, "closed")
            case FileCreatedEvent():
                self._hint(source, "created")
            case DirCreatedEvent():
                self._hint(source, "folder")
            case FileMovedEvent() | DirMovedEvent():
                if source:
                    self._hint(source, "gone")
                if target:
                    self._hint(target, "moved" if isinstance(event, FileMovedEvent) else "folder moved")
            case FileDeletedEvent() | DirDeletedEvent():
                self._hint(source, "gone")

    def _hint(self, path: str, kind: Kind) -> None:
        path = self._folder + path[len(self._real) :]
        with self._lock:
            if path not in self._hints and len(self._hints) >= MAX_HINTS:
                self._overflow = True
            else:
                self._hints[path] = kind
        self._wake()


def _pair_no_moves() -> None:
    """Make watchdog pass on each half of a rename at once.

    It holds back the first half, and all that comes after it, for 0.5 s to report both as one. Here each half says
    all that is needed by itself, and a file that is complete shall not wait.
    """
    try:
        from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper as Grouper
    except ImportError:  # before watchdog 7
        from watchdog.observers.inotify_buffer import InotifyBuffer as Grouper  # type: ignore[import-not-found,no-redef]
    Grouper.delay = 0.0


def _advice(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "no more inotify watches; raise the sysctl fs.inotify.max_user_watches, or set `mode: polling`"
    if error.errno == errno.EMFILE:
        return "no more inotify instances; raise the sysctl fs.inotify.max_user_instances, or set `mode: polling`"
    return f"{error.strerror or error}; `mode: polling` does without the kernel's help"
