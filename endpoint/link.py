"""The manager's socket to its dispatcher: a DEALER with CurveZMQ that heals by itself.

    connected() ── each time a connection is made (the first one, and after the dispatcher was away)
    received(message, epoch) ── whatever the dispatcher sends
    send(message, epoch) ──▶ False: there is no connection; what matters is sent again after the next Ready

The traps of ZeroMQ's descriptor: it is edge-triggered, so everything is read each time, and `EVENTS` is asked after
each send, which may have swallowed the signal. zmq.asyncio is not used: it costs a future per message.

Not here: what is said, and when (`upon.endpoint.manager`); to which of several (`upon.endpoint.links`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.utils.monitor import parse_monitor_message

from upon.dispatcher.keys import dispatcher_public, manager_keys
from upon.dispatcher.protocol import BEAT, LOST_AFTER, FromDispatcher, FromManager
from upon.dispatcher.wire import ProtocolError, epoch_of, from_dispatcher, pack
from upon.errors import ConfigError
from upon.logs import get_logger

log = get_logger(__name__)

BURST = 100
"""Messages read before other work has its turn."""
REFUSED_WAIT = 1.0
"""Seconds before a manager whose key was refused tries again."""
DOUBT = 5
"""Failed handshakes in a row after which it is said that the key may be wrong."""
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)


class Link:
    """The connection to a dispatcher, from now until `close`.

    Args:
        address: tcp://HOST:PORT.
        curve: folder of keys (`upon.dispatcher.keys`).
        identity: this manager's id.
        connected, received: see above.

    Raises:
        ConfigError: the address is none, or a key is damaged.
    """

    def __init__(
        self,
        address: str,
        curve: Path,
        identity: str,
        *,
        connected: Callable[[], None],
        received: Callable[[FromDispatcher, int], None],
    ) -> None:
        self._connected, self._received, self._curve, self._address = connected, received, curve, address
        self._loop, self._identity = asyncio.get_running_loop(), identity.encode()
        keys = manager_keys(curve)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.CURVE_SERVERKEY, dispatcher_public(curve)),
            (zmq.CURVE_PUBLICKEY, keys.public),
            (zmq.CURVE_SECRETKEY, keys.secret),
            (zmq.IMMEDIATE, 1),  # nothing piles up for a dispatcher that is away
            (zmq.SNDHWM, 0),  # bounded by the dispatcher's credit
            (zmq.RCVHWM, 0),
            (zmq.RECONNECT_IVL, 50),
            (zmq.RECONNECT_IVL_MAX, 500),
            (zmq.HEARTBEAT_IVL, int(BEAT * 1000)),  # finds a dead connection that TCP still believes in
            (zmq.HEARTBEAT_TIMEOUT, int(LOST_AFTER * 1000)),
            (zmq.LINGER, 0),
        ):
            self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise ConfigError(
                f"cannot connect to a dispatcher at {address!r}: {error.strerror}; UPON_DISPATCHER is tcp://HOST:PORT, "
                "or several with commas between"
            ) from error
        for end in (self._socket, self._monitor):
            self._loop.add_reader(end.fileno(), self._wake)
        self._closed = self._up = False
        self._refusals = 0  # in a row
        self._wake()

    def send(self, message: FromManager, epoch: int) -> bool:
        """Send a message that bears an epoch; False if there is no connection."""
        try:
            self._socket.send_multipart([self._identity, *pack(message, epoch)], zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            self._loop.call_soon(self._wake)
        return True

    def close(self) -> None:
        """Close; what was sent has 0.2 s to leave."""
        self._closed = True
        for end in (self._socket, self._monitor):
            self._loop.remove_reader(end.fileno())
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=200)
        self._context.term()

    def _wake(self) -> None:
        """Read what there is."""
        if self._closed:
            return
        while _is(self._monitor, zmq.POLLIN):
            self._watch(parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"])
        for _ in range(BURST):
            if not _is(self._socket, zmq.POLLIN):
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
                message = from_dispatcher(frames)
            except ProtocolError as error:
                log.error(f"a message of the dispatcher was dropped: {error}", action="receive")
                continue
            self._received(message, epoch_of(frames))
            if self._closed:
                return
        self._loop.call_soon(self._wake)

    def _watch(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._up, self._refusals = True, 0
            self._greet()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refusals += 1
            if self._refusals == 1:
                log.error(
                    "the dispatcher refused this manager's key: copy it into the folder curve/managers of the "
                    "dispatcher's endpoint; it is tried again until then",
                    action="connect",
                    key=str(self._curve / "managers" / "manager.key"),
                )
            self._loop.call_later(REFUSED_WAIT, self._connect)  # ZeroMQ itself gives up after a refusal
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._refusals += 1
            if self._refusals == DOUBT:
                log.error(
                    "the dispatcher ends the connection before it has begun: it may have another key than this one, "
                    "copy its dispatcher.key here",
                    action="connect",
                    key=str(self._curve / "dispatcher.key"),
                )
        elif self._up:
            self._up = False
            log.info("the connection to the dispatcher ended; connecting again", action="disconnected")

    def _connect(self) -> None:
        if not self._closed:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disconnect(self._address)
            self._socket.connect(self._address)

    def _greet(self) -> None:
        if self._closed:
            return
        if _is(self._socket, zmq.POLLOUT):  # also makes the socket take notice of the connection
            self._connected()
        else:
            self._loop.call_later(0.01, self._greet)


def _is(end: zmq.Socket[bytes], ready: int) -> bool:
    return bool(int(end.get(zmq.EVENTS)) & ready)
