"""A worker process: takes a task's token, runs the task, reports; one after the other, until its manager is gone.

    wait for a token ─▶ find its task (frames come before tokens) ─▶ report Began ─▶ run ─▶ report Done ─▶ …

While tasks queue up, Done and the next Began leave in one write. Nothing is held back: a result is in the kernel,
safe from this process's death, before the next function is called.
Deliberately absent: threads, timers, ZeroMQ, signals. An idle worker is blocked in one system call.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque

from upon.endpoint.channel import TOKEN, Began, Code, Done, Frames, FromWorker, Missing, Task, Up, frame, to_worker
from upon.endpoint.execution import Functions, run
from upon.endpoint.output import Capture

RECEIVE = 64 * 1024


class ManagerGone(Exception):
    """The manager's end of a channel is closed."""


def work(stream: socket.socket, tokens: int, output: int) -> None:
    """Run tasks until the manager is gone.

    Args:
        stream: blocking socket for frames.
        tokens: reading end of the token pipe, not blocking.
        output: the file for stdout and stderr.
    """
    worker = _Worker(stream, tokens, Capture(output))
    with contextlib.suppress(ManagerGone, BrokenPipeError, ConnectionResetError):
        worker.loop()


class _Worker:
    def __init__(self, stream: socket.socket, tokens: int, capture: Capture) -> None:
        self._stream, self._tokens, self._capture = stream, tokens, capture
        self._pid = os.getpid()
        self._frames = Frames()
        self._tasks: deque[Task] = deque()
        self._functions = Functions()
        self._wait = select.poll()
        self._wait.register(tokens, select.POLLIN)

    def loop(self) -> None:
        reports: list[FromWorker] = [Up(self._pid)]
        while True:
            token = self._token_now()
            if token < 0:
                self._send(reports)
                reports = []
                token = self._token()
            task = self._task(token)
            self._need_code(task.code)
            started = time.time_ns()
            reports.append(Began(task.seq, started))
            self._send(reports)  # before the function is even loaded: an import can kill a process, too
            done = run(task, self._functions, started)
            if os.getpid() != self._pid:
                os._exit(0)  # the function forked, and this is the child, come back from it
            reports = [self._with_output(done)]

    def _with_output(self, done: Done) -> Done:
        text = self._capture.take()
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
            self._send([Missing(code)])
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

    def _send(self, reports: list[FromWorker]) -> None:
        if reports:
            self._stream.sendall(frame(reports))
            reports.clear()
