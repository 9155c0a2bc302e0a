"""The manager's hands: the warm parent, the workers' channels, bytes in and out. It decides nothing.

    Fork, Give, Reclaim, Kill (instructions of the pool) ─▶ here ─▶ `Events`: what happened

Guarantees: what a worker said before its end is heard before its end; when the parent dies its workers are killed
and reported as exited, and a new parent starts; who is killed and does not end is reported as stuck. A worker whose
function closed its channel is heard at the back door.
Nothing here blocks, and nothing polls. The talk with the parent is `upon.endpoint.forker`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec.structs import replace

from upon.endpoint import output
from upon.endpoint.cgroups import GONE_WITHIN, Cgroup, hand_down_memory, make, place, sweep
from upon.endpoint.channel import TOKEN, Done, Frames, FromWorker, ToWorker, frame, from_worker
from upon.endpoint.descendants import become_subreaper, children, kill_children
from upon.endpoint.descriptors import make_room
from upon.endpoint.forker import Forker
from upon.endpoint.parent import EXITED
from upon.errors import UponError
from upon.logs import get_logger

log = get_logger(__name__)

RECEIVE = 256 * 1024
_CREDENTIALS = struct.Struct("iII")
"""What SO_PEERCRED tells: process, user, group."""
STUCK = 10.0
"""Seconds after which a worker that was killed and has not ended is given up: it waits in the kernel, mostly for a
file system that does not answer, and dies when that lets it go, without another step of its function."""
SWEEP = 0.02
"""Seconds between two looks for what a dead parent's workers have left."""
LAST_WORDS = 64 * 1024 * 1024
"""Bytes that a worker may say at the back door; past them nobody listens."""


class Events(Protocol):
    """Who is told what happens to workers."""

    def forked(self, worker: int, pid: int) -> None: ...

    def heard(self, worker: int, messages: list[FromWorker]) -> None: ...

    def exited(self, worker: int, exitcode: int, output: str) -> None: ...

    def exceeded(self, worker: int, used: int) -> None: ...

    def stuck(self, worker: int, output: str) -> None: ...

    def confused(self, worker: int) -> None: ...

    def failed(self, error: Exception) -> None: ...


class Channel:
    """The manager's ends of one worker's descriptors."""

    def __init__(self) -> None:
        self.pid = 0
        self.stream, self.worker_end = socket.socketpair()  # the second one is closed when the worker has it
        self.stream.setblocking(False)
        self.tokens, self.tokens_in = os.pipe()
        os.set_blocking(self.tokens, False)
        os.set_blocking(self.tokens_in, False)
        self.output = output.new_output()
        self.frames = Frames()
        self.unsent: deque[memoryview] = deque()
        self.doom: asyncio.TimerHandle | None = None  # when it is given up, once it is killed

    def close(self) -> None:
        if self.doom is not None:
            self.doom.cancel()
        self.stream.close()
        self.worker_end.close()
        for descriptor in (self.tokens, self.tokens_in, self.output):
            os.close(descriptor)


class Workers:
    """The worker processes of this manager.

    Args:
        events: who is told.
        environment: what functions see of the environment.
        count: how many workers there will be at a time.
        cgroups: folder that remembers where this home's managers have some; default: none are made.

    Raises:
        ConfigError: this process may not have as many open files as so many workers need.
    """

    def __init__(self, events: Events, environment: dict[str, str], count: int, cgroups: Path | None = None) -> None:
        self._events, self._environment, self._limit = events, environment, make_room(count)
        self._loop = asyncio.get_running_loop()
        self._channels: dict[int, Channel] = {}
        self._closed, self._notes = False, cgroups
        self._left: list[Cgroup] = []  # of parents that are dead
        self._open_door()
        self._others = children()  # what this process has started apart from us is not ours to end
        become_subreaper()  # what workers started comes to us if the parent dies
        if cgroups is not None:
            sweep(cgroups)
        self._own = place()
        if self._own is not None and cgroups is not None:
            hand_down_memory(self._own, cgroups)
        self._start_parent()

    def _start_parent(self) -> None:
        self._cgroup = make(self._own, self._notes) if self._notes is not None else None
        self._parent = Forker(
            self._environment,
            self._address,
            str(self._cgroup.path) if self._cgroup is not None else "",
            self._limit,
            descriptors=self._open,
            sent=self._sent,
            reported=self._reported,
            gone=self._parent_gone,
        )

    # ------------------------------------------------------------------------------------------------ instructions

    def fork(self, worker: int) -> None:
        """Start a worker."""
        self._parent.fork(worker)

    def give(self, worker: int, messages: list[ToWorker], seqs: list[int]) -> None:
        """Send messages, then the tokens of the tasks among them."""
        channel = self._channels.get(worker)
        if channel is None:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its exit will be reported
            self._send(worker, channel, frame(messages))
            if seqs:
                os.write(channel.tokens_in, b"".join(map(TOKEN.pack, seqs)))

    def reclaim(self, worker: int) -> frozenset[int]:
        """Take back the tokens that the worker has not read; return which."""
        channel = self._channels.get(worker)
        if channel is None:
            return frozenset()
        try:
            data = os.read(channel.tokens, 65536)
        except BlockingIOError:
            return frozenset()
        return frozenset(seq for (seq,) in TOKEN.iter_unpack(data))

    def kill(self, worker: int) -> None:
        """Kill a worker's process group."""
        self._parent.kill(worker)
        channel = self._channels.get(worker)
        if channel is not None and channel.doom is None:
            channel.doom = self._loop.call_later(STUCK, self._give_up, worker, channel)

    def _give_up(self, worker: int, channel: Channel) -> None:
        self._events.stuck(worker, output.take(channel.output))

    def printed(self, worker: int, place: int, most: int) -> tuple[int, bytes] | None:
        """Return what a worker's task has printed behind a place (see `output.look`); None: nothing, or not sure whose.

        A worker reports before it runs its next task: who has reported nothing printed that for the task we know of.
        """
        channel = self._channels.get(worker)
        if channel is None or (found := output.look(channel.output, place, most)) is None:
            return None
        with contextlib.suppress(OSError):
            channel.stream.recv(1, socket.MSG_PEEK)
            return None
        return found

    def cut_output(self, workers: Iterable[int]) -> None:
        """Cut back what their tasks have printed without end."""
        for worker in workers:
            if (channel := self._channels.get(worker)) is not None:
                output.cut(channel.output)

    def close(self) -> None:
        """Kill all workers and the parent, and see them gone, within about two seconds."""
        self._closed = True
        self._close_door()
        self._parent.close()
        if not self._parent.wait():
            self._kill_groups()
        if self._cgroup is not None:
            self._left.append(self._cgroup)
        for one in self._left:
            one.kill()
            one.remove(GONE_WITHIN)
        for channel in self._channels.values():
            self._loop.remove_reader(channel.stream)
            self._loop.remove_writer(channel.stream)
            channel.close()
        self._channels.clear()

    # ------------------------------------------------------------------------------------------------------ workings

    def _open(self, worker: int) -> list[int]:
        """Return the worker's ends of its channel."""
        channel = self._channels.get(worker)
        if channel is None:
            channel = self._channels[worker] = Channel()
        return [channel.worker_end.fileno(), channel.tokens, channel.output]

    def _sent(self, worker: int) -> None:
        channel = self._channels[worker]
        channel.worker_end.close()
        self._loop.add_reader(channel.stream, self._on_stream, worker)

    def _send(self, worker: int, channel: Channel, data: bytes | bytearray) -> None:
        if not channel.unsent:
            try:
                sent = channel.stream.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = memoryview(data)[sent:]  # type: ignore[assignment]
            self._loop.add_writer(channel.stream, self._on_writable, worker)
        channel.unsent.append(memoryview(data))

    def _on_writable(self, worker: int) -> None:
        channel = self._channels[worker]
        try:
            while channel.unsent:
                sent = channel.stream.send(channel.unsent[0])
                if sent < len(channel.unsent[0]):
                    channel.unsent[0] = channel.unsent[0][sent:]
                    return
                channel.unsent.popleft()
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            channel.unsent.clear()
        self._loop.remove_writer(channel.stream)

    def _on_stream(self, worker: int) -> None:
        if self._receive(worker) == 0:  # it has ended, or its function has closed everything and runs on
            self._loop.remove_reader(self._channels[worker].stream)

    def _receive(self, worker: int) -> int:
        """Hear what a worker has said; return the number of bytes, 0 at the end, -1 if there is nothing now."""
        channel = self._channels[worker]
        try:
            data = channel.stream.recv(RECEIVE)
        except BlockingIOError:
            return -1
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE):
                raise
            return 0
        self._heard(worker, channel.frames, data)
        return len(data)

    def _heard(self, worker: int, frames: Frames, data: bytes, printed: str = "") -> None:
        """Take in what a worker has said; `printed`: by its task, which left it no way to say so."""
        try:
            messages = [message for body in frames.feed(data) for message in from_worker(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._events.confused(worker)
            return
        if printed:
            messages = [replace(one, stdout=printed) if isinstance(one, Done) else one for one in messages]
        if messages:
            self._events.heard(worker, messages)

    # ------------------------------------------------------------------------------------------------ the back door

    def _open_door(self) -> None:
        self._address, self._door = "", None
        if sys.platform.startswith("linux"):  # elsewhere there is no abstract namespace
            self._address = f"upon-{secrets.token_hex(16)}"
            self._door = socket.socket(socket.AF_UNIX)
            self._door.bind(f"\0{self._address}")
            self._door.listen()
            self._door.setblocking(False)
            self._loop.add_reader(self._door, self._on_knock, self._door)

    def _close_door(self) -> None:
        if self._door is not None:
            self._loop.remove_reader(self._door)
            self._door.close()

    def _on_knock(self, door: socket.socket) -> None:
        with contextlib.suppress(OSError):
            guest, _ = door.accept()
            pid, _, _ = _CREDENTIALS.unpack(guest.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            worker = next((worker for worker, channel in self._channels.items() if channel.pid == pid), None)
            if worker is None:
                guest.close()
                return
            guest.setblocking(False)
            self._loop.create_task(self._listen(worker, guest))

    async def _listen(self, worker: int, guest: socket.socket) -> None:
        """Hear the last words of a worker whose channel was closed under it."""
        with guest:
            words = bytearray()
            with contextlib.suppress(OSError):
                while len(words) < LAST_WORDS and (data := await self._loop.sock_recv(guest, RECEIVE)):
                    words += data
            if (channel := self._channels.get(worker)) is not None:
                self._heard(worker, Frames(), bytes(words), printed=output.take(channel.output))

    def _reported(self, kind: int, worker: int, pid: int, exitcode: int, used: int) -> None:
        if kind == EXITED:
            if pid == 0:
                log.warning(f"a worker could not be forked: {os.strerror(exitcode)}", action="fork")
            self._exited(worker, exitcode, used)
        elif worker in self._channels:
            self._channels[worker].pid = pid
            self._events.forked(worker, pid)

    def _exited(self, worker: int, exitcode: int, used: int = 0) -> None:
        channel = self._channels.get(worker)
        if channel is None:
            return
        while self._receive(worker) > 0:
            pass
        text = output.take(channel.output)
        self._loop.remove_reader(channel.stream)
        self._loop.remove_writer(channel.stream)
        del self._channels[worker]
        channel.close()
        if used:
            self._events.exceeded(worker, used)
        self._events.exited(worker, exitcode, text)

    def _parent_gone(self) -> None:
        unasked = self._parent.close()
        if self._cgroup is not None:
            self._cgroup.kill()
            self._left.append(self._cgroup)
        code = self._parent.end()
        self._kill_groups()
        if not self._parent.proved:
            self._events.failed(
                UponError(
                    f"the process that workers are forked from ended at its start with code {code}; "
                    f"its error is in the log above; try `{sys.executable} -c 'import upon.endpoint.parent'`"
                )
            )
            return
        log.warning("the workers' parent process died; starting another", action="parent_lost", exitcode=code)
        lost = [worker for worker in self._channels if worker not in unasked]
        self._start_parent()
        for worker in unasked:
            self.fork(worker)
        self._sweep()
        for worker in lost:
            self._exited(worker, -signal.SIGKILL)

    def _sweep(self) -> None:
        """End what the dead parent's workers had started: it has become ours, and so will its children."""
        spared = (self._parent.pid, *self._others)
        if self._closed:
            return
        killed = kill_children(spare=spared)
        for pid in children() if killed else ():
            if pid not in spared:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        self._left = [one for one in self._left if not one.remove()]
        if killed or self._left:
            self._loop.call_later(SWEEP, self._sweep)

    def _kill_groups(self) -> None:
        for channel in self._channels.values():
            if channel.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(channel.pid, signal.SIGKILL)
