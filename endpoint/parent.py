"""The warm parent: a process with everything imported, no thread and no socket but one, that forks the workers.

    manager ──Fork(worker, 3 descriptors)──▶ parent ──fork──▶ worker          (each in its own session)
            ──Kill(worker)─────────────────▶        ──SIGKILL to its group──▶
            ◀──Forked(worker, pid)──────────
            ◀──Exited(worker, pid, code)────        ◀──SIGCHLD──

A fork of this process costs about a millisecond; a new interpreter with its imports costs a hundred.

Guarantees: when the manager is gone (the socket ends), all workers and whatever they started are killed and this
process exits; when this process is gone, Linux kills the workers. A process id is never signalled after it was
reaped, and what a function started dies with its worker, before that worker's end is reported: its process group, and
on Linux what had left that as well, for it is in the worker's cgroup, and becomes a child of this process.
Deliberately absent: decisions (`upon.endpoint.decisions.pool`), tasks (they go from manager to worker directly).
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator

from upon.endpoint.cgroups import Nest
from upon.endpoint.descendants import become_subreaper, death_signal, end_children, kill_children
from upon.endpoint.worker import work

FORK, KILL, FORKED, EXITED = 1, 2, 3, 4
REQUEST = struct.Struct("<BI")
"""Kind and worker; Fork has the worker's stream, tokens and output with it."""
REPORT = struct.Struct("<BIiiq")
"""Kind, worker, process id, exit code (minus the signal's number), bytes of memory for which the kernel killed it. No
process id: the fork failed."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def main() -> None:
    """Serve the manager at the other end of the socket whose descriptor is the first argument.

    The second one is the address of its back door (`upon.endpoint.worker`), the third one the path of the cgroup for
    this process and the workers; each may be empty.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    door, cgroup = sys.argv[2:4]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's Ctrl-C is for the manager, whose end is ours
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    gc.collect()
    gc.freeze()  # keeps the pages of what is imported shared with the workers
    become_subreaper()
    _Parent(control, door, Nest(cgroup)).serve()


class _Parent:
    def __init__(self, control: socket.socket, door: str, nest: Nest) -> None:
        self._control, self._door, self._nest = control, door, nest
        self._pids: dict[int, int] = {}  # worker → process id, of those not reaped
        self._workers: dict[int, int] = {}  # process id → worker
        self._die_with_me = death_signal()
        self._children, self._wakeup = os.pipe()
        for end in (self._children, self._wakeup):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)

    def serve(self) -> None:
        wait = select.poll()
        wait.register(self._control, select.POLLIN)
        wait.register(self._children, select.POLLIN)
        try:
            while True:
                for descriptor, _ in wait.poll():
                    if descriptor == self._children:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._children, 4096)
                        self._reap()
                    elif not self._request():
                        return
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            self._end()

    def _end(self) -> None:
        """Kill all workers and see them gone, with whatever they started, within a second."""
        for worker in self._pids:
            self._kill(worker)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(1)
        end_children(patience=1.0)
        with contextlib.suppress(ChildProcessError):
            while True:  # where children cannot be listed
                os.waitpid(-1, 0)
        self._nest.close()

    def _request(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, REQUEST.size, 3)
        while data and len(data) < REQUEST.size:
            data += self._control.recv(REQUEST.size - len(data))
        if not data:
            return False
        kind, worker = REQUEST.unpack(data)
        if kind == KILL:
            self._kill(worker)
        else:
            self._fork(worker, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, worker: int, descriptors: list[int]) -> None:
        parent = os.getpid()
        self._nest.add(worker)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a signal in the child must not reach our pipe
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._nest.remove(worker)
            self._report(EXITED, worker, 0, error.errno or 1)
            return
        if pid == 0:
            code = 1
            try:
                cgroup = self._become_worker(worker, parent)
                stream, tokens, output = descriptors
                work(stream, tokens, output, self._door, cgroup)
                code = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._pids[worker], self._workers[pid] = pid, worker
        self._report(FORKED, worker, pid, 0)

    def _become_worker(self, worker: int, parent: int) -> str:
        """Be a worker; return its cgroup, if that bounds its memory."""
        os.setsid()
        cgroup = self._nest.enter(worker)
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for descriptor in (self._children, self._wakeup, self._control.detach()):
            os.close(descriptor)
        become_subreaper()
        self._die_with_me()
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the system knew that we shall die with it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return cgroup

    def _kill(self, worker: int) -> None:
        pid = self._pids.get(worker)
        if pid is None:
            return
        self._nest.kill(worker)
        _kill_group(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it may not have its own groups yet

    def _reap(self) -> None:
        dead = [(self._workers.pop(pid), pid, code) for pid, code in _dead_children() if pid in self._workers]
        self._nest.tidy()
        used = {worker: self._nest.exceeded(worker) for worker, _, _ in dead}
        for worker in used:
            self._nest.remove(worker)
        kill_children(spare=self._workers)  # what a dead worker left; its death brings us back here, for its children
        for worker, pid, code in dead:
            del self._pids[worker]
            self._report(EXITED, worker, pid, code, used[worker])

    def _report(self, kind: int, worker: int, pid: int, code: int, used: int = 0) -> None:
        self._control.sendall(REPORT.pack(kind, worker, pid, code, used))


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _dead_children() -> Iterator[tuple[int, int]]:
    """Kill the group of each dead child, then reap it; yield process id and exit code."""
    while True:
        try:
            if hasattr(os, "waitid"):
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if dead is None:
                    return
                _kill_group(dead.si_pid)  # not reaped yet, so the id cannot be a stranger's
                pid, status = os.waitpid(dead.si_pid, 0)
            else:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                _kill_group(pid)
        except ChildProcessError:
            return
        yield pid, os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
