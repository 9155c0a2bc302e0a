"""Control groups of a manager's processes (Linux, cgroup v2): what a worker starts cannot leave its group, and ends
with it.

    <the manager's own>/upon-<pid>-<n>/     one for each warm parent
        parent/                              the warm parent
        <worker>/                            a worker, with all that its functions start, in whatever session

One write kills all in a group, however fast they fork, and finds what is nobody's child: what is left when manager and
warm parent are killed together. Where no group can be made (no cgroup v2, one that is read-only or somebody else's),
process groups and subreapers do the work alone (`upon.endpoint.descendants`), as they do for what a task leaves in a
worker that lives on.

Each manager notes in its home where it makes a group, before it does; the next one removes what the dead ones left.
A worker enters its group at its birth: to move a process takes the kernel up to 10 ms, too much for each task.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import time
from pathlib import Path

from upon.logs import get_logger
from upon.processes import alive, myself

PROCESSES, KILL, PARENT = "cgroup.procs", "cgroup.kill", "parent"
GONE_WITHIN = 1.0
"""Seconds in which what is killed is gone, and its group can be removed."""
_PAUSE = 0.005
log = get_logger(__name__)


def place() -> Path | None:
    """Return this process's own cgroup, if others can be made in it and killed as one."""
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError):
        own = next((line[3:] for line in _lines("/proc/self/cgroup") if line.startswith("0::")), "")
        for line in _lines("/proc/self/mountinfo"):
            fields = line.split()
            kind = fields[fields.index("-") + 1]
            if own and kind == "cgroup2" and (own == fields[3] or own.startswith(fields[3].rstrip("/") + "/")):
                found = Path(fields[4], os.path.relpath(own, fields[3]))
                return found if os.access(found, os.W_OK) else None
    return None


class Cgroup:
    """A cgroup of this manager's, for one warm parent and its workers.

    Args:
        path: where it is.
        note: the file that says so.
    """

    def __init__(self, path: Path, note: Path) -> None:
        self.path, self._note = path, note

    def kill(self) -> None:
        """Kill all that is in it."""
        _write(self.path / KILL, "1")

    def remove(self, within: float = 0.0) -> bool:
        """Remove it once nothing is in it any more; tell whether it is gone.

        Args:
            within: s to wait for that.
        """
        end = time.monotonic() + within
        while not _removed(self.path):
            if time.monotonic() >= end:
                return False
            time.sleep(_PAUSE)
        self._note.unlink(missing_ok=True)
        return True


def make(notes: Path) -> Cgroup | None:
    """Make a cgroup for a warm parent; None: this system, or whose it is, does not let us.

    Args:
        notes: folder in the home that remembers where there are some.
    """
    own = place()
    if own is None:
        return None
    path = own / f"upon-{os.getpid()}-{secrets.token_hex(4)}"
    note = notes / f"{socket.gethostname()}-{path.name}"
    try:
        notes.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{myself()}\n{path}\n")
        (path / PARENT).mkdir(parents=True)
        if (path / KILL).exists():
            return Cgroup(path, note)
        Cgroup(path, note).remove()  # a kernel before 5.14
    except OSError:
        note.unlink(missing_ok=True)
    return None


def sweep(notes: Path) -> None:
    """Kill what managers on this host have left that are no more, and remove their cgroups."""
    for note in notes.glob(f"{socket.gethostname()}-*"):
        with contextlib.suppress(OSError, ValueError):
            manager, where = note.read_text().splitlines()
            if alive(manager) is None and Path(where).name.startswith("upon-"):
                left = Cgroup(Path(where), note)
                if left.path.exists():
                    log.info("what a manager left that is no more is killed", action="sweep", cgroup=where)
                    left.kill()
                left.remove(GONE_WITHIN)


class Nest:
    """The warm parent's side of it: a group for each worker.

    Args:
        path: of the cgroup that its manager has made; empty: there is none, and nothing happens.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._left: set[int] = set()
        if path and not _write(f"{path}/{PARENT}/{PROCESSES}", "0"):
            self._path = ""

    def add(self, worker: int) -> None:
        """Make a worker's group, before it is forked."""
        if self._path:
            with contextlib.suppress(OSError):
                os.mkdir(f"{self._path}/{worker}")

    def enter(self, worker: int) -> None:
        """Enter it, as that worker. Where that fails the worker lives without."""
        if self._path:
            _write(f"{self._path}/{worker}/{PROCESSES}", "0")

    def kill(self, worker: int) -> None:
        """Kill a worker with all that it has started."""
        if self._path:
            _write(f"{self._path}/{worker}/{KILL}", "1")

    def remove(self, worker: int) -> None:
        """A worker is no more: remove its group, when the last of what it has started is gone."""
        if self._path:
            self.kill(worker)
            self._left.add(worker)
            self.tidy()

    def tidy(self) -> None:
        """Remove what could not be removed before."""
        if self._left:
            self._left = {worker for worker in self._left if not _removed(f"{self._path}/{worker}")}

    def close(self) -> None:
        """Go back to where the manager is, and remove everything."""
        if self._path and _write(f"{os.path.dirname(self._path)}/{PROCESSES}", "0"):
            _removed(self._path)


def _removed(path: str | Path) -> bool:
    """Remove a cgroup and those in it, as far as nothing is in them; tell whether it is gone."""
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not os.path.exists(path)


def _write(path: str | Path, text: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, text.encode())
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lines(path: str) -> list[str]:
    with open(path) as file:
        return file.read().splitlines()
