"""The dispatcher's socket: a ROUTER with CurveZMQ, its door keeper (ZAP) and its eyes (the socket monitor).

    add_reader(socket, monitor, door) ──▶ wake()      then the loop calls
    broken() ──▶ managers whose connections have broken, receive() ──▶ (manager, frames)   until nothing is left
    send(manager, frames) ──▶ False: there is no such peer

A connection that breaks is known at once: the monitor names its file descriptor, and each message says through
which descriptor it came. zmq.asyncio is not used: it costs a future per message.

The trap: ZeroMQ's descriptor is edge-triggered. It becomes readable once, so everything must be read each time;
and a send may swallow the signal, so after sends `pending` must be asked. The loop does both.

Not here: what messages mean (`protocol`), and who a manager is (`roster`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from upon.dispatcher.keys import KeyPair, allowed
from upon.errors import ConfigError
from upon.logs import get_logger
from upon.machine import raise_descriptor_limit

log = get_logger(__name__)

ZAP_ADDRESS = "inproc://zeromq.zap.01"
DESCRIPTORS = 65_536
"""Files that the dispatcher may have open, where the system allows so many."""
MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes: a peer that sends a longer frame is disconnected."""
HANDSHAKE = 3.0
"""Seconds that a connection has to show its key; who connects and says nothing holds a descriptor so long."""
KEYS_AFTER = 0.5
"""Seconds between two readings of the folder of keys, for a key that is not among them."""
LISTEN = 0.005
"""Seconds of reading before the loop does its other work."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The connection of this manager broke."""

    manager: str


Message = tuple[str, list[bytes]]


class Refusals:
    """When a refusal is worth a line in the log: the first, and then one a minute for all together. Pure."""

    EVERY = 60.0

    def __init__(self) -> None:
        self._count, self._told = 0, float("-inf")

    def count(self, now: float) -> int | None:
        """Take in a refusal; return how many there were since it was last said, None: say nothing.

        Args:
            now: monotonic s.
        """
        self._count += 1
        if now - self._told < self.EVERY:
            return None
        count, self._count, self._told = self._count, 0, now
        return count


class Router:
    """The socket, bound and open to allowed managers until `close`.

    Args:
        address: tcp://HOST:PORT; empty: any free port of 127.0.0.1.
        keys: the dispatcher's.
        curve: folder of keys; managers in it are let in.
        wake: called when there may be something to read.

    Attributes:
        address: where it listens.

    Raises:
        ConfigError: the address is taken or is none.
    """

    def __init__(self, address: str, keys: KeyPair, curve: Path, wake: Callable[[], None]) -> None:
        self._curve, self._allowed = curve, allowed(curve)
        self._keys_read, self._refusals = float("-inf"), Refusals()
        raise_descriptor_limit(DESCRIPTORS)  # for connections without a key, which hold one for a moment
        self._context = zmq.Context()
        self._door = self._context.socket(zmq.REP)
        self._door.bind(ZAP_ADDRESS)  # before the ROUTER is bound, or its first peers would pass unasked
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.CURVE_SERVER, 1)
        self._socket.set(zmq.CURVE_SECRETKEY, keys.secret)
        self._socket.set(zmq.ZAP_DOMAIN, b"upon")
        self._socket.set(zmq.ROUTER_MANDATORY, 1)  # a send to nobody says so
        self._socket.set(zmq.ROUTER_HANDOVER, 1)  # a manager that reconnects takes its old place
        self._socket.set(zmq.SNDHWM, 0)  # credits bound what is sent; dropping would lose tasks
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE)
        self._socket.set(zmq.HANDSHAKE_IVL, int(HANDSHAKE * 1000))
        self._socket.set(zmq.LINGER, 0)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            self._socket.bind(address or "tcp://127.0.0.1:*")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise ConfigError(
                f"cannot listen for managers at {address}: {error.strerror or error}; "
                "set UPON_DISPATCHER to a free tcp://HOST:PORT, or leave it empty for any free port"
            ) from error
        self.address = self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\x00")
        self._by_fd: dict[int, str] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._door.FD, self._admit)
        for socket in (self._socket, self._monitor):
            self._loop.add_reader(socket.FD, wake)
        self._admit()

    def receive(self) -> Iterator[Message | Gone]:
        """Yield what was said, for `LISTEN` s at most; `pending` tells whether there is more.

        `Gone` where a manager speaks through another connection than before. Ask `broken` first: what was said through
        a connection that broke comes here after that.
        """
        until = time.monotonic() + LISTEN
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            manager = frames[0].bytes.decode(errors="replace")
            descriptor = int(frames[-1].get(zmq.SRCFD))
            if self._by_fd.get(descriptor) != manager:
                yield from self._arrived(manager, descriptor)
            yield manager, [frame.bytes for frame in frames[1:]]
            if time.monotonic() > until:
                break

    def _arrived(self, manager: str, descriptor: int) -> Iterator[Gone]:
        """A manager speaks through a connection that is new to us: the one it had, if any, is gone."""
        before = [known for known, who in self._by_fd.items() if who == manager]
        for known in before:
            del self._by_fd[known]
        self._by_fd[descriptor] = manager
        if before:
            yield Gone(manager)

    def broken(self) -> Iterator[str]:
        """Yield the managers whose connections have broken since this was asked last."""
        while True:
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            manager = self._by_fd.pop(int(event["value"]), None)
            if manager is not None:
                yield manager

    def send(self, manager: str, frames: list[bytes]) -> bool:
        """Send to a manager; False if there is no connection to it."""
        try:
            self._socket.send_multipart([manager.encode(), *frames], zmq.NOBLOCK, copy=False)
        except (zmq.Again, zmq.ZMQError) as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def pending(self) -> bool:
        """Tell whether there is something to read that no signal will announce."""
        return bool(int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN or int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN)

    def _admit(self) -> None:
        """Answer the ZAP requests of connections that open: RFC 27, mechanism CURVE."""
        while int(self._door.get(zmq.EVENTS)) & zmq.POLLIN:
            request = self._door.recv_multipart()
            version, sequence, _domain, address, _identity, mechanism, *credentials = request
            key = z85.encode(credentials[0]) if mechanism == b"CURVE" and credentials else b""
            now = time.monotonic()
            if key and key not in self._allowed and now - self._keys_read >= KEYS_AFTER:
                self._allowed, self._keys_read = allowed(self._curve), now  # it may have been added since
            name = self._allowed.get(key)
            if name is None:
                if (count := self._refusals.count(now)) is not None:
                    log.warning(
                        "a connection was refused: its key is not among the managers' keys",
                        action="refuse",
                        address=address.decode(errors="replace"),
                        keys=str(self._curve / "managers"),
                        refused=count,
                    )
                answer = [b"400", b"key not allowed", b""]
            else:
                answer = [b"200", b"OK", name.encode()]
            self._door.send_multipart([version, sequence, *answer, b""])

    def close(self) -> None:
        """Say what is still to be said (up to 0.2 s) and close."""
        for socket in (self._door, self._socket, self._monitor):
            self._loop.remove_reader(socket.FD)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=200)
        self._door.close(linger=0)
        self._context.term()
