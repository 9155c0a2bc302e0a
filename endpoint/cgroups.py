"""Control groups of a manager's processes (Linux, cgroup v2): what a worker starts cannot leave its group, and ends
with it.

    <the manager's own>/upon-<pid>-manager/  the manager, where it must make room for the bounds of the others
    <the manager's own>/upon-<pid>-<n>/      one for each warm parent
        parent/                              the warm parent
        <worker>/                            a worker, with all that its functions start, in whatever session

One write kills all in a group, however fast they fork, and finds what is nobody's child: what is left when manager and
warm parent are killed together. Where no group can be made (no cgroup v2, one that is read-only or somebody else's),
process groups and subreapers do the work alone (`upon.endpoint.descendants`), as they do for what a task leaves in a
worker that lives on.

Where the memory controller is to be had as well, the kernel holds a task to the memory it was promised: the worker sets
`memory.max` for as long as the task runs, and what takes more is killed at once, with all that is in the group. The
controller can be handed down only from a group without processes of its own. So it is had by a manager that is alone in
its group (a container, a unit of its own), which then moves aside; else the manager looks every now and then
(`upon.endpoint.memory`).

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
MEMORY, CHILDREN_HAVE = "memory.max", "cgroup.subtree_control"
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


def make(own: Path | None, notes: Path) -> Cgroup | None:
    """Make a cgroup for a warm parent; None: this system, or whose it is, does not let us.

    Args:
        own: in which one (`place`).
        notes: folder in the home that remembers where there are some.
    """
    made = _made(own, notes, secrets.token_hex(4)) if own is not None else None
    if own is None or made is None:
        return None
    try:
        if _gives_memory(own):
            _give_memory(made.path)
        (made.path / PARENT).mkdir()
        if (made.path / KILL).exists():
            return made
    except OSError:
        pass
    made.remove()  # a kernel before 5.14, or one that has enough of them
    return None


def hand_down_memory(own: Path, notes: Path) -> None:
    """Have bounds of memory below this process's cgroup, if that can be; if it must, move aside for them."""
    with contextlib.suppress(OSError):
        if "memory" not in (own / "cgroup.controllers").read_text().split() or _give_memory(own):
            return
        if (own / PROCESSES).read_text().split() != [str(os.getpid())]:
            return
        aside = _made(own, notes, "manager")
        if aside is not None and _write(aside.path / PROCESSES, "0") and not _give_memory(own):
            _write(own / PROCESSES, "0")
            aside.remove()


def _made(own: Path, notes: Path, name: str) -> Cgroup | None:
    path = own / f"upon-{os.getpid()}-{name}"
    note = notes / f"{socket.gethostname()}-{path.name}"
    try:
        notes.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{myself()}\n{path}\n")
        path.mkdir()
    except OSError:
        note.unlink(missing_ok=True)
        return None
    return Cgroup(path, note)


def _gives_memory(path: Path) -> bool:
    return "memory" in (path / CHILDREN_HAVE).read_text().split()


def _give_memory(path: Path) -> bool:
    """Have the memory controller in the groups in this one; tell whether they have it."""
    return _gives_memory(path) or (_write(path / CHILDREN_HAVE, "+memory") and _gives_memory(path))


def bound(cgroup: str, memory: int) -> None:
    """Bound what all in a cgroup may take together, by this many bytes (of memory alone, not of swap); 0: no more."""
    _write(f"{cgroup}/memory.swap.max", "0" if memory else "max")
    _write(f"{cgroup}/{MEMORY}", str(memory) if memory else "max")


def exceeded(cgroup: str) -> int:
    """Return the bytes that those in a cgroup had taken who were killed for more than their bound; 0: they were not."""
    try:
        events = dict(line.split() for line in _lines(f"{cgroup}/memory.events"))
        if not int(events["oom"]) or not int(events["oom_kill"]):  # the second one alone: the whole system had no more
            return 0
        most = f"{cgroup}/memory.peak"
        return int(_lines(most if os.path.exists(most) else f"{cgroup}/{MEMORY}")[0])
    except (OSError, ValueError, KeyError):
        return 0


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
        self._path, self._home = path, place()
        self._left: set[int] = set()
        if path and not _write(f"{path}/{PARENT}/{PROCESSES}", "0"):
            self._path = ""

    def add(self, worker: int) -> None:
        """Make a worker's group, before it is forked."""
        if self._path:
            with contextlib.suppress(OSError):
                os.mkdir(f"{self._path}/{worker}")
                _write(f"{self._path}/{worker}/memory.oom.group", "1")

    def enter(self, worker: int) -> str:
        """Enter it, as that worker; return its path if it bounds memory. Where that fails the worker lives without."""
        path = f"{self._path}/{worker}"
        entered = self._path and _write(f"{path}/{PROCESSES}", "0")
        return path if entered and os.path.exists(f"{path}/{MEMORY}") else ""

    def exceeded(self, worker: int) -> int:
        """Return how many bytes a dead worker's task had taken, if it was killed for that; else 0."""
        return exceeded(f"{self._path}/{worker}") if self._path else 0

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
        if self._path and self._home is not None and _write(self._home / PROCESSES, "0"):
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
