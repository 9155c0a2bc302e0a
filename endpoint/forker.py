"""The manager's end of the talk with the warm parent: who is to be forked or killed, and what became of it.

    fork(worker), kill(worker) ─▶ `IN_FLIGHT` forks at a time ─▶ parent ─▶ reported(FORKED | EXITED …), gone()

Nothing here blocks: while the parent is busy, what it is to be told waits here. Forks are paced, so hundreds of workers
need neither a socket's whole buffer nor hundreds of descriptors that travel; a kill does not wait behind them.
Not here: what is sent to workers and heard from them (`upon.endpoint.workers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable

from upon.endpoint.parent import FORK, FORKED, KILL, REPORT, REQUEST

IN_FLIGHT = 32
"""Workers that the parent is asked for and has not answered, at most."""
END_PATIENCE = 1.5
"""Seconds that the parent has to see its workers dead and to end."""


class Forker:
    """One warm parent, from now until its end.

    Args:
        environment: what functions see of the environment.
        door: address of the manager's back door; empty: there is none.
        cgroup: path of the one for the parent and its workers; empty: there is none.
        descriptor_limit: soft limit of open files that functions are to have; 0: as this process has it.
        descriptors: opens a worker's ends of its channel, and returns stream, tokens, output.
        sent: a worker's ends are on their way, and may be closed here.
        reported: is told (kind, worker, process id, exit code, bytes of memory for which the kernel killed it).
        gone: the parent has ended.

    Attributes:
        pid: of the parent.
        proved: whether it has reported anything.
    """

    def __init__(
        self,
        environment: dict[str, str],
        door: str,
        cgroup: str,
        descriptor_limit: int,
        *,
        descriptors: Callable[[int], list[int]],
        sent: Callable[[int], None],
        reported: Callable[[int, int, int, int, int], None],
        gone: Callable[[], None],
    ) -> None:
        self._descriptors, self._sent, self._reported, self._gone = descriptors, sent, reported, gone
        self._loop = asyncio.get_running_loop()
        self._forks: deque[int] = deque()
        self._kills: deque[int] = deque()
        self._doomed: set[int] = set()  # to be killed as soon as they are forked
        self._in_flight = 0
        self._held = b""  # of a report, until the rest comes
        self.proved = self._blocked = False
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "upon.endpoint.parent", str(theirs.fileno()), door, cgroup],
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.pid = self._process.pid
        if descriptor_limit and hasattr(resource, "prlimit"):
            with contextlib.suppress(OSError):  # it has ended already, which will be noticed
                _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
                resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (descriptor_limit, hard))
        self._loop.add_reader(self._control, self._on_readable)

    def fork(self, worker: int) -> None:
        """Start a worker, when its turn comes."""
        self._forks.append(worker)
        self._push()

    def kill(self, worker: int) -> None:
        """Kill a worker's process group."""
        if worker in self._forks:
            self._doomed.add(worker)
            return
        self._kills.append(worker)
        self._push()

    def close(self) -> list[int]:
        """Say no more, the parent's sign to kill all workers and to end; return the workers that were not asked for."""
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        return list(self._forks)

    def wait(self) -> bool:
        """Wait for the parent's end after `close`, `END_PATIENCE` s; tell whether it came by itself."""
        try:
            self._process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            self.end()
            return False
        return True

    def end(self) -> int:
        """Kill the parent; return its exit code."""
        self._process.kill()
        return self._process.wait()

    def _push(self) -> None:
        """Tell the parent what it can be told now."""
        if self._blocked:
            return
        try:
            while self._kills:
                self._control.send(REQUEST.pack(KILL, self._kills[0]))
                self._kills.popleft()
            while self._forks and self._in_flight < IN_FLIGHT:
                worker = self._forks[0]
                socket.send_fds(self._control, [REQUEST.pack(FORK, worker)], self._descriptors(worker))
                self._forks.popleft()
                self._in_flight += 1
                self._sent(worker)
                if worker in self._doomed:
                    self._doomed.discard(worker)
                    self._kills.append(worker)
                    self._loop.call_soon(self._push)
        except BlockingIOError:  # all of a request goes, or nothing: it is a few bytes
            self._blocked = True
            self._loop.add_writer(self._control, self._on_writable)
        except (BrokenPipeError, ConnectionResetError):
            return  # its end will be noticed

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._control)
        self._blocked = False
        self._push()

    def _on_readable(self) -> None:
        try:
            data = self._control.recv(REPORT.size * 256)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._gone()
            return
        self.proved = True
        data = self._held + data
        whole = len(data) - len(data) % REPORT.size
        self._held = data[whole:]
        for kind, worker, pid, exitcode, used in REPORT.iter_unpack(data[:whole]):
            if kind == FORKED or pid == 0:
                self._in_flight -= 1
            self._reported(kind, worker, pid, exitcode, used)
        self._push()
