"""The filesystem source: `upon.file.ready`, once for each completed version of a file in a folder.

    notifications (inotify) ──hints──▶ look at the file ──▶ readiness ──▶ event ──▶ Kafka ──▶ checkpoint
    scans: at the start, every `rescan`, of new folders ──▶ stands still for `settle`? ──┘

Guarantees:
  - A file that is closed after writing, or renamed into place, is announced within milliseconds (mode inotify).
  - One event for each version of each path (`readiness` says what a version is), also over restarts: the checkpoint
    holds what Kafka has. After a kill -9 the last events may be repeated, under the same id.
  - What notifications missed (the source was down, the kernel's queue ran over, a folder was filled before it could be
    watched) a scan finds, and announces once it has stood still for `settle` seconds and nobody is seen writing it.
  - On file systems that other machines write to (NFS, Lustre, SMB, …) there are no notifications: mode polling scans
    every `poll` seconds and goes by `settle` alone.

An appending writer that closes several times makes as many versions. A writer that opens once, writes slowly and
closes once makes one. Deliberately absent: reading content, checksums, and deleting or moving what was announced.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from contextlib import nullcontext
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import Field

from upon.errors import SourceError
from upon.events import Event, rfc3339
from upon.triggers.mounts import file_system, is_shared
from upon.triggers.notifications import Kind, Notifications
from upon.triggers.readiness import Readiness, Ready
from upon.triggers.scanning import IGNORED, Names, look, walk
from upon.triggers.source import Context, Duration, LocalPath, Source, SourceConfig, event_id
from upon.triggers.writers import open_for_writing

READY = "upon.file.ready"
STARTED = "started"
"""Checkpoint key that is no path: the source has run before."""
STOP_WITHIN = 0.5
"""Seconds after which it looks whether it shall stop."""
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
    poll: Annotated[Duration, Field(gt=0)] = Field(1.0, description="time between scans in mode polling")
    rescan: Annotated[Duration, Field(gt=0)] = Field(
        60.0, description="time between scans in mode inotify, for what notifications missed"
    )
    existing: bool = Field(True, description="announce files that were there before the source's very first start")


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
        known = {path: version for path, version in context.checkpoint.items() if path != STARTED}
        self._readiness = Readiness(config.settle, known)
        self._every = config.poll if self.polls else config.rescan
        self._next_scan = 0.0
        self._new_folders: dict[str, float] = {}

    def run(self) -> None:
        if not os.path.isdir(self.folder):
            raise SourceError(f"{self.folder}: no such folder; create it, or correct the source's `path`")
        notifications = None if self.polls else Notifications(self.folder, recursive=self.config.recursive)
        with notifications or nullcontext():
            self._scan(first=True)
            self.context.log.info(
                "watching", action="watch", folder=self.folder, mode="polling" if self.polls else "inotify"
            )
            self.context.ready()
            while not self.context.stopping.is_set():
                if notifications is not None:
                    self._take_hints(notifications)
                if time.monotonic() >= self._next_scan:
                    self._scan()
                self._judge()
                self._wait(notifications)

    # ── the steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_hints(self, notifications: Notifications) -> None:
        hints, overflow = notifications.take()
        for path, kind in hints.items():
            self._take_hint(path, kind)
        if overflow:
            self._next_scan = 0.0
        if not notifications.alive:
            raise SourceError(f"{self.folder}: watching ended; is the folder still there?")

    def _take_hint(self, path: str, kind: Kind) -> None:
        if kind == "gone":
            self._readiness.gone(path, time.monotonic())
        elif kind in ("folder", "folder moved"):
            self._enter(path, moved=kind == "folder moved")
        elif self._names.wants(path) and (stamp := look(path, inode=self._inode)) is not None:
            if kind == "closed":
                self._announce(self._readiness.closed(path, stamp))
            elif kind == "moved":
                self._announce(self._readiness.moved(path, stamp))
            elif self._will_be_closed(path):
                self._readiness.created(path)
            else:
                self._readiness.seen(path, stamp, time.monotonic())

    def _enter(self, folder: str, *, moved: bool) -> None:
        """Look into a folder that is new: what came into it before it was watched was not notified."""
        if not (self.config.recursive and self._names.enters(folder) and os.path.isdir(folder)):
            return
        now = time.monotonic()
        self._new_folders = {path: until for path, until in self._new_folders.items() if until > now}
        self._new_folders[folder] = now + NEW_FOLDER
        try:
            for path, stamp in self._walk(folder):
                if moved:
                    self._announce(self._readiness.moved(path, stamp))
                else:
                    self._readiness.seen(path, stamp, now)
        except OSError:
            return  # gone again, or not ours to read: the next scan knows

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

    def _scan(self, *, first: bool = False) -> None:
        """Look at every file; those that are not there any more are forgotten after a day."""
        ignore_existing = first and not self.config.existing and STARTED not in self.context.checkpoint
        now = time.monotonic()
        there: set[str] = set()
        try:
            for path, stamp in self._walk(self.folder):
                there.add(path)
                if ignore_existing:
                    self._readiness.versions[path] = stamp.version
                    self.context.checkpoint.set(path, stamp.version)
                else:
                    self._readiness.seen(path, stamp, now, first=first)
        except OSError as error:
            raise SourceError(f"{self.folder}: cannot be read: {error.strerror or error}") from error
        for path in self._readiness.versions.keys() - there:
            self._readiness.gone(path, now)
        for path in self._readiness.forgettable(now):
            self.context.checkpoint.delete(path)
        if STARTED not in self.context.checkpoint:
            self.context.checkpoint.set(STARTED, True)
        self._next_scan = time.monotonic() + self._every

    def _judge(self) -> None:
        """Look again at the candidates that should have stood still by now."""
        due = self._readiness.due(time.monotonic())
        if not due:
            return
        written = open_for_writing(due)
        for path in due:
            if (stamp := look(path, inode=self._inode)) is None:
                self._readiness.gone(path, time.monotonic())
            else:
                self._announce(self._readiness.judged(path, stamp, time.monotonic(), written=path in written))

    def _wait(self, notifications: Notifications | None) -> None:
        until = min(self._next_scan, self._readiness.next_due() or self._next_scan)
        pause = max(0.0, min(until - time.monotonic(), STOP_WITHIN))
        if notifications is None:
            self.context.stopping.wait(pause)
        else:
            notifications.wait(pause)

    # ── what comes of it ──────────────────────────────────────────────────────────────────────────────────────────

    def _announce(self, ready: Ready | None) -> None:
        if ready is None:
            return
        path, version = ready.path, ready.stamp.version
        try:
            path.encode()
        except UnicodeEncodeError:
            self.context.log.error("a file's name is not UTF-8; rename the file", action="refuse", path=ascii(path))
            return
        event = Event(
            type=READY,
            source=self.uri,
            subject=path,
            id=event_id(self.uri, path, version),
            data={
                "path": path,
                "size": ready.stamp.size,
                "mtime": rfc3339(ready.stamp.mtime_ns),
                "version": version,
                "reason": ready.reason,
            },
        )
        self.context.publish(event, lambda: self.context.checkpoint.set(path, version))

    def _walk(self, folder: str) -> Any:
        return walk(folder, self._names, recursive=self.config.recursive, inode=self._inode)
