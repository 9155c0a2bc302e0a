"""Ask a broker whether it is ready, with two requests and no client library.

A broker accepts connections before it can work; the metadata names it as a living broker only when it can. A new
one makes its table of group positions when it is first asked who coordinates a group: asked here, so that no
consumer finds it missing, logs an error and waits. A client library would need 100 ms to import and retries after
pauses; this notices readiness within 20 ms.
Protocol: https://kafka.apache.org/protocol, Metadata version 4, FindCoordinator version 0.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass

METADATA, METADATA_VERSION = 3, 4
FIND_COORDINATOR, FIND_COORDINATOR_VERSION = 10, 0
CLIENT = b"upon"
INTERVAL = 0.02
"""Seconds between two questions."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a broker said of its cluster: living brokers (node, host, port), cluster id, controller's node or -1."""

    brokers: tuple[tuple[int, str, int], ...]
    cluster: str
    controller: int


def request() -> bytes:
    """Return a Metadata request that asks for no topic, framed by its length."""
    return _framed(METADATA, METADATA_VERSION, struct.pack(">i?", 0, False))


def coordinator_request(group: str = "upon") -> bytes:
    """Return a FindCoordinator request for a group, framed by its length."""
    return _framed(FIND_COORDINATOR, FIND_COORDINATOR_VERSION, struct.pack(">h", len(group)) + group.encode())


def parse(response: bytes) -> Metadata:
    """Read a Metadata response without its length.

    Raises:
        ValueError: it is none.
    """
    try:
        at = 8  # correlation id, throttle time
        (count,) = struct.unpack_from(">i", response, at)
        at += 4
        brokers = []
        for _ in range(count):
            (node,) = struct.unpack_from(">i", response, at)
            host, at = _string(response, at + 4)
            (port,) = struct.unpack_from(">i", response, at)
            _rack, at = _string(response, at + 4)
            brokers.append((node, host, port))
        cluster, at = _string(response, at)
        (controller,) = struct.unpack_from(">i", response, at)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not a Kafka metadata response: {error}") from error
    return Metadata(tuple(brokers), cluster, controller)


def ask(address: str, timeout: float = 1.0) -> Metadata:
    """Return what the broker at `HOST:PORT` says of its cluster.

    Args:
        timeout: s, for the whole exchange.

    Raises:
        OSError: nobody answers in time.
        ValueError: who answers is no Kafka broker.
    """
    return parse(_exchange(address, request(), timeout))


def has_coordinator(address: str, timeout: float = 1.0) -> bool:
    """Return whether the cluster knows who coordinates a group; asking makes it find out.

    Raises:
        OSError: nobody answers in time.
        ValueError: who answers is no Kafka broker.
    """
    response = _exchange(address, coordinator_request(), timeout)
    if len(response) < 6:
        raise ValueError("not a Kafka coordinator response")
    (error,) = struct.unpack_from(">h", response, 4)
    return bool(error == 0)


def is_ready(address: str, cluster: str | None = None, timeout: float = 1.0) -> bool:
    """Return whether a living broker answers at `HOST:PORT[,HOST:PORT…]`, and coordinates groups.

    Args:
        cluster: id that its cluster must have; None: any.
    """
    for one in address.split(","):
        try:
            metadata = ask(one, timeout)
            if metadata.brokers and cluster in (None, metadata.cluster) and has_coordinator(one, timeout):
                return True
        except (OSError, ValueError):
            continue
    return False


async def answers(address: str, timeout: float = 30.0, cluster: str | None = None) -> bool:
    """Wait until a living broker answers at `address`; return False when `timeout` s have passed."""
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(is_ready, address, cluster):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(INTERVAL)
    return True


def _framed(request_kind: int, version: int, body: bytes) -> bytes:
    header = struct.pack(">hhih", request_kind, version, 1, len(CLIENT)) + CLIENT
    return struct.pack(">i", len(header) + len(body)) + header + body


def _exchange(address: str, message: bytes, timeout: float) -> bytes:
    """Send one request and return its response without the length."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    with socket.create_connection((host, int(port)), timeout) as connection:
        connection.sendall(message)
        (length,) = struct.unpack(">i", _exactly(connection, 4, deadline))
        if not 0 < length < 1 << 20:
            raise ValueError("not a Kafka broker")
        return _exactly(connection, length, deadline)


def _exactly(connection: socket.socket, count: int, deadline: float) -> bytes:
    data = b""
    while len(data) < count:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("the connection was closed")
        data += part
    return data


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    if length < 0:
        return "", at + 2
    end = at + 2 + length
    if end > len(data):
        raise struct.error("a string ends beyond the response")
    return data[at + 2 : end].decode(), end
