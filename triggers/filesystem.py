"""The filesystem source: `upon.file.ready`, once for each completed version of a file in a folder.

    notifications (inotify) ──hints──▶ look at the file ──▶ readiness ──▶ event ──▶ Kafka ──▶ checkpoint
    scans: at the start, every `rescan` (a thread) ──▶ stands still for `settle`? ──┘

Guarantees:
  - A file that is closed after writing, or renamed into place, is announced within milliseconds (mode inotify), unless
    somebody else is seen to write it still; also while a scan of many files is under way.
  - One event for each version of each path (`readiness` says what a version is), also over restarts: the checkpoint
    holds what Kafka has. After a kill -9 the last events may be repeated, under the same id.
  - What notifications missed (the source was down, the kernel's queue ran over, a folder was filled before it could be
    watched) a scan finds, and announces once it has stood still for `settle` seconds and nobody is seen writing it.
  - On file systems that other machines write to (NFS, Lustre, SMB, …) there are no notifications: mode polling scans
    every `poll` seconds and goes by `settle` alone.

An appending writer that closes several times makes as many versions, unless it does so within `quiet`. A writer that
opens once, writes slowly and closes once makes one. A folder whose files are all away (a mount) has lost none of them.
A folder that is renamed, replaced or mounted over is watched anew at its path, also if it is back in a moment.
Deliberately absent: reading content, checksums, and deleting or moving what was announced.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import Field

from upon.errors import SourceError
from upon.events import Event, rfc3339
from upon.triggers.links import refusal
from upon.triggers.mounts import file_system, is_shared
from upon.triggers.notifications import Kind, Notifications
from upon.triggers.readiness import REMEMBER, Known, Readiness, Ready, Stamp, stamp_of
from upon.triggers.scanning import IGNORED, Names, Scan, look, walk
from upon.triggers.source import Context, Duration, LocalPath, Source, SourceConfig, event_id
from upon.triggers.writers import open_for_writing

READY = "upon.file.ready"
STARTED = "started"
"""Checkpoint key that is no path: the source has run before."""
STOP_WITHIN = 0.5
"""Seconds after which it looks whether it shall stop, and whether the folder is still the one it watches."""
UNSAFE = 500
"""Events of this source that may wait for Kafka while files that a scan found are announced: a file that is closed
meanwhile does not wait behind more than these."""
JUDGED = 50
"""Files that are judged in one turn, for the same reason."""
NEW_FOLDER = 2.0
"""Seconds for which a creation notified in a new folder may be watchdog's own guess."""


class FilesystemConfig(SourceConfig):
    """Options of kind `filesystem`."""

    path: LocalPath = Field(description="the folder to watch")
    recursive: bool = Field(True, description="folders below it as well")
    patterns: tuple[str, ...] = Field((), description="globs, one of which a file must match; none: all files")
    ignore: tuple[str, ...] = Field(
        IGNORED, description="globs of names to leave alone: files not yet complete, and folders not to enter"
    )
    mode: Literal["auto", "inotify", "polling"] = Field(
        "auto",
        description="inotify: the kernel notifies; polling: scan again and again; auto: by the type of file system",
    )
    settle: Annotated[Duration, Field(gt=0)] = Field(
        2.0, description="how long a file must stand still whose close was not notified; longer than a writer pauses"
    )
    quiet: Annotated[Duration, Field(ge=0)] = Field(
        0.0, description="how long a file must stand still after its close, for writers that close several times"
    )
    poll: Annotated[Duration, Field(gt=0)] = Field(1.0, description="time between scans in mode polling")
    rescan: Annotated[Duration, Field(gt=0)] = Field(
        60.0, description="time between scans in mode inotify, for what notifications missed"
    )
    existing: bool = Field(True, description="announce files that were there before the source's very first start")
    remember: Annotated[Duration, Field(gt=0)] = Field(
        REMEMBER, description="how long a file that is gone is remembered, so that it is not new when it comes back"
    )


class FilesystemSource(Source[FilesystemConfig]):
    """Announces the files of one folder."""

    Config: ClassVar[type[Any]] = FilesystemConfig

    def __init__(self, config: FilesystemConfig, context: Context) -> None:
        super().__init__(config, context)
        self.folder = str(config.path)
        self.uri = f"upon:filesystem:{socket.gethostname()}{quote(self.folder)}"
        kind = file_system(self.folder)
        self.polls = config.mode == "polling" or (config.mode == "auto" and (not kind or is_shared(kind)))
        self._inode = not is_shared(kind)
        self._names = Names(self.folder, config.patterns, config.ignore)
        known = {path: text for path, text in context.checkpoint.items() if path != STARTED}
        self._readiness = Readiness(config.settle, known, quiet=config.quiet, remember=config.remember)
        self._every = config.poll if self.polls else config.rescan
        self._scan: Scan | None = None
        self._ignore_found = False
        self._first = True
        self._missed = False  # notifications were, since the last scan began
        self._notified = False  # whether the scan under way may rely on them
        self._next_scan = 0.0
        self._new_folders: dict[str, float] = {}
        self._place: tuple[int, int] | None = None
        self._left = False  # the folder that is watched has been seen not to be at its path
        self._wake = threading.Event()
        self._unsafe = 0
        self._counting = threading.Lock()

    def run(self) -> None:
        while not self.context.stopping.is_set():
            self._follow()

    def replay(self, since_ns: int | None, paths: str | None) -> Iterator[Event]:
        for path, text in self.context.checkpoint.items():
            if path == STARTED or not (paths is None or PurePath(path).match(paths)):
                continue
            known = Known.parse(text)
            now = look(path, inode=self._inode)
            if now is None or now.version != known.seen or (since_ns is not None and now.mtime_ns < since_ns):
                continue
            if (event := self._event(path, stamp_of(known.announced), "replayed")) is not None:
                yield event

    def _follow(self) -> None:
        """Watch the folder that is at the path now, until it is another one."""
        self._place, self._left = _identity(self.folder), False
        if self._place is None:
            raise SourceError(f"{self.folder}: no such folder; create it, or correct the source's `path`")
        recursive = self.config.recursive
        notifications = None if self.polls else Notifications(self.folder, recursive=recursive, wake=self._wake.set)
        with notifications or nullcontext():
            self._begin_scan()
            while self._ignore_found and self._scan is not None and not self.context.stopping.is_set():
                self._take_found(self._scan)
                self._wait(STOP_WITHIN)
            if self._first:
                self.context.log.info(
                    "watching", action="watch", folder=self.folder, mode="polling" if self.polls else "inotify"
                )
            self.context.ready()
            look_again = time.monotonic() + STOP_WITHIN
            while not self.context.stopping.is_set():
                if time.monotonic() >= look_again:
                    self._check_place()
                    look_again = time.monotonic() + STOP_WITHIN
                if self._left:
                    break
                if notifications is not None:
                    self._take_hints(notifications)
                if self._scan is not None:
                    self._take_found(self._scan)
                elif time.monotonic() >= self._next_scan:
                    self._begin_scan()
                self._judge()
                self._wait(self._pause())
            else:
                return
        if self._scan is not None:
            self._scan.stop()
        self._scan = None
        self.context.log.info("the folder was moved or replaced: watched anew", action="watch", folder=self.folder)

    # ── the steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_hints(self, notifications: Notifications) -> None:
        hints, overflow = notifications.take()
        for path, kind in hints.items():
            self._take_hint(path, kind)
        if overflow:
            self._missed, self._notified, self._next_scan = True, False, 0.0
        if not notifications.alive:
            raise SourceError(f"{self.folder}: watching ended; is the folder still there?")

    def _take_hint(self, path: str, kind: Kind) -> None:
        if kind == "gone":
            self._readiness.gone(path, time.monotonic())
        elif kind in ("folder", "folder moved"):
            self._enter(path, moved=kind == "folder moved")
        elif self._names.wants(path) and (stamp := self._look(path)) is not None:
            if kind in ("closed", "moved"):
                ended = self._readiness.closed if kind == "closed" else self._readiness.moved
                self._announce(ended(path, stamp, time.monotonic(), written=bool(open_for_writing([path]))))
            elif self._will_be_closed(path):
                self._readiness.created(path)
            else:
                self._readiness.seen(path, stamp, time.monotonic())

    def _enter(self, folder: str, *, moved: bool) -> None:
        """Look into a folder that is new: what came into it before it was watched was not notified."""
        if not (self.config.recursive and self._names.enters(folder)):
            return
        if not os.path.isdir(folder):
            self._check_place()
            return
        now = time.monotonic()
        self._new_folders = {path: until for path, until in self._new_folders.items() if until > now}
        self._new_folders[folder] = now + NEW_FOLDER
        try:
            for path, stamp in self._walk(folder):
                if moved:
                    self._announce(self._readiness.moved(path, stamp, now))
                else:
                    self._readiness.seen(path, stamp, now)
        except OSError:
            self._check_place()  # gone again, or not ours to read: the next scan knows

    def _look(self, path: str) -> Stamp | None:
        """Look at a file. One that is not there tells nothing while the whole folder is away: it will be scanned."""
        stamp = look(path, inode=self._inode)
        if stamp is None:
            self._check_place()
            if not self._left:  # the folder is there, and may have come back since we looked
                stamp = look(path, inode=self._inode)
        return stamp

    def _check_place(self) -> None:
        """Notice that the folder that is watched is not at its path: what was notified meanwhile was looked for there
        in vain, also if it is back a moment later."""
        self._left = self._left or _identity(self.folder) != self._place

    def _will_be_closed(self, path: str) -> bool:
        """Whether a notified creation was one: links are not written, and in a new folder watchdog guesses."""
        now = time.monotonic()
        if any(path.startswith(folder + "/") and until > now for folder, until in self._new_folders.items()):
            return False
        try:
            found = os.lstat(path)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_nlink == 1

    def _begin_scan(self) -> None:
        self._ignore_found = self._first and not self.config.existing and STARTED not in self.context.checkpoint
        self._notified = not (self.polls or self._first or self._missed)
        self._missed = False
        self._scan = Scan(self._walk(self.folder), list(self._readiness.known), self._wake.set)

    def _take_found(self, scan: Scan) -> None:
        """Take in a slice of what a scan found, or its end; a file that is not there is forgotten after long."""
        now = time.monotonic()
        try:
            found = scan.take()
        except OSError as error:
            self._scan = None
            raise SourceError(f"{self.folder}: cannot be read: {error.strerror or error}") from error
        if found is None:
            self._end_scan(scan, now)
        elif self._ignore_found:
            self.context.checkpoint.set_all(self._readiness.ignore(found))
        else:
            for path, stamp in found:
                self._readiness.seen(path, stamp, now, first=self._first, notified=self._notified)

    def _end_scan(self, scan: Scan, now: float) -> None:
        self._scan = None
        if scan.empty:
            self._readiness.away(now)
        else:
            for path in scan.missing:
                self._readiness.gone(path, now)
        for path in self._readiness.forgettable(now):
            self.context.checkpoint.delete(path)
        if self._first:
            self.context.checkpoint.set(STARTED, True)
        self._first = self._ignore_found = False
        self._next_scan = now + self._every

    def _judge(self) -> None:
        """Look again at the candidates that should have stood still by now."""
        with self._counting:
            room = UNSAFE - self._unsafe
        due = self._readiness.due(time.monotonic(), min(room, JUDGED)) if room > 0 else []
        written = open_for_writing(due)
        for path in due:
            if (stamp := self._look(path)) is None:
                self._readiness.gone(path, time.monotonic())
            else:
                judged = self._readiness.judged(path, stamp, time.monotonic(), written=path in written)
                if isinstance(judged, Known):
                    self._remember(path, judged.announced)
                else:
                    self._announce(judged)

    def _pause(self) -> float:
        """Return how long there is nothing to do, unless something wakes us, s."""
        if self._scan is not None and self._scan.waiting:
            return 0.0
        until = min(self._next_scan, self._readiness.next_due() or self._next_scan)
        return max(0.0 if self._unsafe < UNSAFE else 0.01, min(until - time.monotonic(), STOP_WITHIN))

    def _wait(self, pause: float) -> None:
        self._wake.wait(pause)
        self._wake.clear()

    # ── what comes of it ──────────────────────────────────────────────────────────────────────────────────────────

    def _announce(self, ready: Ready | None) -> None:
        if ready is None:
            return
        event = self._event(ready.path, ready.stamp, ready.reason)
        if event is None:
            return
        if event.data["mtime"] is None:
            self.context.log.warning(
                "a file's modification time is in no calendar; it is announced without",
                action="announce", path=ready.path,
            )  # fmt: skip
        path, version = ready.path, ready.stamp.version
        with self._counting:
            self._unsafe += 1
        try:
            self.context.publish(event, lambda: self._safe(path, version))
        except BaseException:
            with self._counting:
                self._unsafe -= 1
            raise

    def _safe(self, path: str, version: str) -> None:
        with self._counting:
            self._unsafe -= 1
        known = self._readiness.known.get(path)
        self.context.checkpoint.set(path, known.text if known is not None and known.announced == version else version)

    def _remember(self, path: str, announced: str) -> None:
        """Write down as what a file is seen now, if it is written down already that it was announced."""
        if Known.parse(self.context.checkpoint.get(path, "")).announced == announced:
            self.context.checkpoint.set(path, self._readiness.known[path].text)

    def _event(self, path: str, stamp: Stamp, reason: str) -> Event | None:
        """Return the event of a file; None, and the log says why, if there must be none."""
        try:
            path.encode()
            refused = refusal(path, self.folder)
        except UnicodeEncodeError:
            refused = "its name is not UTF-8; rename the file"
        if refused is not None:
            said = path.encode(errors="backslashreplace").decode()
            self.context.log.error(f"a file is not announced: {refused}", action="refuse", path=said)
            return None
        try:
            mtime = rfc3339(stamp.mtime_ns)
        except (OverflowError, ValueError, OSError):
            mtime = None
        return Event(
            type=READY,
            source=self.uri,
            subject=path,
            id=event_id(self.uri, path, stamp.version),
            data={"path": path, "size": stamp.size, "mtime": mtime, "version": stamp.version, "reason": reason},
        )

    def _walk(self, folder: str) -> Any:
        return walk(folder, self._names, recursive=self.config.recursive, inode=self._inode)


def _identity(folder: str) -> tuple[int, int] | None:
    """Return which folder is at a path: its device and inode; None: there is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None
