"""The dispatcher's socket: a ROUTER with CurveZMQ, its door keeper (ZAP) and its eyes (the socket monitor).

    add_reader(socket, monitor, door) ──▶ wake()      then the loop calls
    broken() ──▶ managers whose connections have broken, receive() ──▶ (manager, frames)   until nothing is left
    locked_out() ──▶ managers whose keys were removed
    send(manager, frames) ──▶ False: there is no such peer

Whose connection it is: ZeroMQ numbers the connections itself, and no peer can choose a number that another one has. A
manager's id is the first frame of what it says, and belongs to the key that said it first: another key that names it is
not heard, and gets nothing that is meant for it. A key whose file goes is not heard any more, connected or not.

A connection that breaks is known at once: the monitor names its file descriptor, and the first message of each
connection says through which descriptor it came. zmq.asyncio is not used: it costs a future per message.

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

from upon.dispatcher.keys import KeyPair, allowed, changed
from upon.errors import AddressTaken, ConfigError
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
KEYS_EVERY = 0.5
"""Seconds between two looks at the folder of keys, and at most so often for a key that is not among them."""
RACY = 2_000_000_000
"""Nanoseconds for which a folder that was just changed is read again: its time is not exact."""
OWNERS = 10_000
"""Managers, gone ones included, of which is remembered whose key is theirs."""
LISTEN = 0.005
"""Seconds of reading before the loop does its other work."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The connection of this manager broke."""

    manager: str


@dataclass(frozen=True, slots=True)
class Peer:
    """One connection that has spoken."""

    number: bytes  # ZeroMQ's
    manager: str
    key: bytes  # public, Z85
    descriptor: int


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
        AddressTaken: another program listens there.
        ConfigError: the address is none, or none of this machine.
    """

    def __init__(self, address: str, keys: KeyPair, curve: Path, wake: Callable[[], None]) -> None:
        self._curve, self._allowed, self._keys_seen = curve, allowed(curve), changed(curve)
        self._keys_read, self._refusals, self._takeovers = float("-inf"), Refusals(), Refusals()
        self._wake = wake
        raise_descriptor_limit(DESCRIPTORS)  # for connections without a key, which hold one for a moment
        self._context = zmq.Context()
        self._door = self._context.socket(zmq.REP)
        self._door.bind(ZAP_ADDRESS)  # before the ROUTER is bound, or its first peers would pass unasked
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.CURVE_SERVER, 1)
        self._socket.set(zmq.CURVE_SECRETKEY, keys.secret)
        self._socket.set(zmq.ZAP_DOMAIN, b"upon")
        self._socket.set(zmq.ROUTER_MANDATORY, 1)  # a send to nobody says so
        self._socket.set(zmq.ROUTER_HANDOVER, 0)  # nobody takes the place of another connection
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
            raise (AddressTaken if error.errno == zmq.EADDRINUSE else ConfigError)(
                f"cannot listen for managers at {address}: {error.strerror or error}; "
                "set UPON_DISPATCHER to a free tcp://HOST:PORT, or leave it empty for any free port"
            ) from error
        self.address = self._socket.get_string(zmq.LAST_ENDPOINT).rstrip("\x00")
        self._peers: dict[bytes, Peer] = {}  # number → connection, until it breaks
        self._current: dict[str, Peer] = {}  # manager → its newest connection
        self._by_fd: dict[int, Peer] = {}
        self._reused: dict[int, int] = {}  # descriptor → breaks to come that are those of earlier connections
        self._owners: dict[str, bytes] = {}  # manager → key
        self._locked_out: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._door.FD, self._admit)
        for socket in (self._socket, self._monitor):
            self._loop.add_reader(socket.FD, wake)
        self._admit()
        self._looking = self._loop.call_later(KEYS_EVERY, self._look)

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
            if len(frames) < 2:
                continue  # no manager says that
            peer = self._peers.get(frames[0].bytes)
            if peer is None:
                peer = self._peer(frames)
                yield from self._arrived(peer)
            if self._may_speak(peer, frames[1].bytes):
                yield peer.manager, [frame.bytes for frame in frames[2:]]
            if time.monotonic() > until:
                break

    @staticmethod
    def _peer(frames: list[zmq.Frame]) -> Peer:
        number, manager, last = frames[0].bytes, frames[1].bytes, frames[-1]
        key = str(last.get("User-Id")).encode()
        return Peer(number, manager.decode(errors="replace"), key, int(last.get(zmq.SRCFD)))

    def _arrived(self, peer: Peer) -> Iterator[Gone]:
        """A connection speaks for the first time: the one that its manager had, if any, is gone."""
        self._peers[peer.number] = peer
        if (earlier := self._by_fd.get(peer.descriptor)) is not None:  # its break is not heard of yet
            self._reused[peer.descriptor] = self._reused.get(peer.descriptor, 0) + 1
            if self._forget(earlier):
                yield Gone(earlier.manager)
        self._by_fd[peer.descriptor] = peer
        owner = self._owners.setdefault(peer.manager, peer.key)
        if owner != peer.key:
            if (count := self._takeovers.count(time.monotonic())) is not None:
                log.warning(
                    f"a connection that calls itself manager {peer.manager} is not heard: that one has another key",
                    action="refuse",
                    manager=peer.manager,
                    key=self._allowed.get(peer.key),
                    owner=self._allowed.get(owner),
                    refused=count,
                )
            return
        if len(self._owners) > OWNERS:
            gone = next((manager for manager in self._owners if manager not in self._current), peer.manager)
            del self._owners[gone]
        if peer.manager in self._current:
            yield Gone(peer.manager)
        self._current[peer.manager] = peer

    def _may_speak(self, peer: Peer, manager: bytes) -> bool:
        """Whether a message counts: of a manager's newest connection, in its own name, with a key that is there."""
        return (
            self._current.get(peer.manager) is peer
            and peer.key in self._allowed
            and manager.decode(errors="replace") == peer.manager
        )

    def _forget(self, peer: Peer) -> bool:
        """A connection is no more; tell whether its manager had no other."""
        self._peers.pop(peer.number, None)
        if self._current.get(peer.manager) is not peer:
            return False
        del self._current[peer.manager]
        return True

    def broken(self) -> Iterator[str]:
        """Yield the managers whose connections have broken since this was asked last."""
        while True:
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            descriptor = int(event["value"])
            if left := self._reused.pop(descriptor, 0):
                if left > 1:
                    self._reused[descriptor] = left - 1
                continue
            peer = self._by_fd.pop(descriptor, None)
            if peer is not None and self._forget(peer):
                yield peer.manager

    def locked_out(self) -> list[str]:
        """Return the managers whose keys were removed since this was asked last.

        They are not heard any more, and can be told why.
        """
        gone, self._locked_out = self._locked_out, []
        return gone

    def send(self, manager: str, frames: list[bytes]) -> bool:
        """Send to a manager; False if there is no connection to it."""
        peer = self._current.get(manager)
        if peer is None:
            return False
        try:
            self._socket.send_multipart([peer.number, *frames], zmq.NOBLOCK, copy=False)
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
            if key and key not in self._allowed and now - self._keys_read >= KEYS_EVERY:
                self._keys_read = now
                self._read_keys()  # it may have been added since
            if key not in self._allowed:
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
                answer = [b"200", b"OK", key]  # comes back as User-Id with each message
            self._door.send_multipart([version, sequence, *answer, b""])

    def _look(self) -> None:
        """See whether a key was removed."""
        self._looking = self._loop.call_later(KEYS_EVERY, self._look)
        seen = changed(self._curve)
        if seen != self._keys_seen or seen > time.time_ns() - RACY:  # the same time may be that of two changes
            self._keys_seen = seen
            self._read_keys()

    def _read_keys(self) -> None:
        before, self._allowed = self._allowed, allowed(self._curve, self._allowed)
        removed = before.keys() - self._allowed.keys()
        if removed:
            log.info("keys of managers were removed", action="lock_out", keys=sorted(before[key] for key in removed))
            self._locked_out += [peer.manager for peer in self._current.values() if peer.key in removed]
            self._wake()

    def close(self) -> None:
        """Say what is still to be said (up to 0.2 s) and close."""
        self._looking.cancel()
        for socket in (self._door, self._socket, self._monitor):
            self._loop.remove_reader(socket.FD)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=200)
        self._door.close(linger=0)
        self._context.term()
