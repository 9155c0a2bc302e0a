"""A worker process: takes a task's token, runs the task, reports; one after the other, until its manager is gone.

    wait for a token ─▶ find its task (frames come before tokens) ─▶ report Began ─▶ run ─▶ clear up ─▶ report Done ─▶ …
                                                             something is left that cannot be put back ─▶ Done, Retire

While tasks queue up, Done and the next Began leave in one write. Nothing is held back: a result is in the kernel,
safe from this process's death, before the next function is called.
A function may close every descriptor there is. What it returned is not lost by that: its worker says its last words
at the manager's back door, a listening socket that knows it by its process id.
Deliberately absent: threads, timers, ZeroMQ, signals. An idle worker is blocked in one system call.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import socket
from collections import deque
from time import time_ns

from upon.endpoint.channel import (
    TOKEN,
    Began,
    Code,
    Done,
    Frames,
    FromWorker,
    Missing,
    Retire,
    Task,
    Up,
    frame,
    to_worker,
)
from upon.endpoint.confinement import confined
from upon.endpoint.environment import where
from upon.endpoint.execution import Functions, run
from upon.endpoint.leftovers import Leftovers
from upon.endpoint.output import Capture
from upon.store.payloads import Payloads

RECEIVE = 64 * 1024
RESERVED = 1000
"""Our descriptors have numbers from here on, where the limit allows: what closes or writes to all the low ones,
as programs do that become daemons, does not meet them."""
DOOR_PATIENCE = 10.0
"""Seconds that a manager has to take last words."""


class ManagerGone(Exception):
    """The manager's end of a channel is closed."""


def work(stream: int, tokens: int, output: int, door: str = "", cgroup: str = "") -> None:
    """Run tasks until the manager is gone, or until a task has left what cannot be put back.

    Args:
        stream: descriptor of a blocking socket, for frames.
        tokens: reading end of the token pipe, not blocking.
        output: the file for stdout and stderr.
        door: address of the manager's back door in the abstract namespace; empty: there is none.
        cgroup: path of this process's own, if it bounds memory.
    """
    output = reserve(output)
    capture = Capture(output)
    frames, tokens = socket.socket(fileno=reserve(stream)), reserve(tokens)
    worker = _Worker(frames, tokens, capture, door, Leftovers(output, reserve, capture.restore), cgroup)
    with contextlib.suppress(ManagerGone, BrokenPipeError, ConnectionResetError):
        try:
            worker.loop()
        except (BrokenPipeError, ConnectionResetError):
            raise
        except OSError as error:  # a descriptor of ours is no more
            worker.last_words(f"closed what it had not opened: {error.strerror}")


def reserve(descriptor: int) -> int:
    """Move a descriptor to a high number; return it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < RESERVED + 10:
        return descriptor
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, RESERVED)
    os.close(descriptor)
    return high


class _Worker:
    def __init__(  # noqa: PLR0917
        self, stream: socket.socket, tokens: int, capture: Capture, door: str, leftovers: Leftovers, cgroup: str
    ) -> None:
        self._stream, self._tokens, self._capture, self._door = stream, tokens, capture, door
        self._leftovers, self._cgroup = leftovers, cgroup
        self._frames = Frames()
        self._tasks: deque[Task] = deque()
        self._functions = Functions()
        told = where(os.environ)
        self._payloads = Payloads(lambda: told)
        self._wait = select.poll()
        self._wait.register(tokens, select.POLLIN)
        self._reports: list[FromWorker] = [Up(os.getpid(), bool(cgroup))]  # not sent yet
        self._forked = False
        os.register_at_fork(after_in_child=self._on_fork)

    def _on_fork(self) -> None:
        self._forked = True

    def loop(self) -> None:
        while True:
            token = self._token_now()
            if token < 0:
                self._send()
                token = self._token()
            task = self._task(token)
            self._need_code(task.code)
            started = time_ns()
            self._reports.append(Began(task.seq, started))
            self._send()  # before the function is even loaded: an import can kill a process, too
            with confined(task, self._cgroup):
                done = run(task, self._functions, started, self._payloads)
            if self._forked:
                os._exit(0)  # the function forked, and this is the child, come back from it
            left = self._leftovers.clear(task.code, (done.finished - done.started) / 1e9)
            self._reports.append(self._with_output(done))
            if left:
                self._reports.append(Retire(left))
                self._send()
                return

    def last_words(self, reason: str) -> None:
        """Say at the back door what could not be said by the channel, and that another worker is needed.

        A Began that was not heard is left out: its function was not called, and its task goes to another worker.
        """
        words = [report for report in self._reports if not isinstance(report, Began | Retire)]
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(DOOR_PATIENCE)
            door.connect(f"\0{self._door}")
            door.sendall(frame([*words, Retire(reason)]))
            door.shutdown(socket.SHUT_WR)
            door.recv(1)  # the end of its side: it has heard

    def _with_output(self, done: Done) -> Done:
        try:
            text = self._capture.take()
        except OSError:  # closed; so is the channel, most likely
            return done
        if not text:
            return done
        return Done(
            done.seq, done.started, done.finished, done.payload, done.failure, done.preview, text, done.bad_items
        )

    def _token_now(self) -> int:
        """Return the next token, -1 if there is none now."""
        try:
            data = os.read(self._tokens, TOKEN.size)
        except BlockingIOError:
            return -1
        if not data:
            raise ManagerGone
        return int(TOKEN.unpack(data)[0])

    def _token(self) -> int:
        while True:
            self._wait.poll()
            if (token := self._token_now()) >= 0:
                return token

    def _task(self, token: int) -> Task:
        """Return the token's task; those before it were taken back by the manager."""
        while True:
            while self._tasks:
                task = self._tasks.popleft()
                if task.seq == token:
                    return task
            self._receive()

    def _need_code(self, code: str) -> None:
        if code not in self._functions:
            self._reports.append(Missing(code))
            self._send()
            while code not in self._functions:
                self._receive()

    def _receive(self) -> None:
        data = self._stream.recv(RECEIVE)
        if not data:
            raise ManagerGone
        for body in self._frames.feed(data):
            for message in to_worker(body):
                if isinstance(message, Code):
                    self._functions.add(message)
                else:
                    self._tasks.append(message)

    def _send(self) -> None:
        if self._reports:
            self._stream.sendall(frame(self._reports))
            self._reports.clear()
