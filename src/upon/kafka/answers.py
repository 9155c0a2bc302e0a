"""Ask a broker whether it is ready, with one Metadata request and no client library.

A broker accepts connections before it can work; the metadata names it as a living broker only when it can.
A client library would need 100 ms to import and retries after pauses; this notices readiness within 20 ms.
Protocol: https://kafka.apache.org/protocol, Metadata version 4 (request and response).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass

METADATA = 3
VERSION = 4
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
    client = b"upon"
    body = struct.pack(">hhih", METADATA, VERSION, 1, len(client)) + client + struct.pack(">i?", 0, False)
    return struct.pack(">i", len(body)) + body


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
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    with socket.create_connection((host, int(port)), timeout) as connection:
        connection.sendall(request())
        (length,) = struct.unpack(">i", _exactly(connection, 4, deadline))
        if not 0 < length < 1 << 20:
            raise ValueError("not a Kafka broker")
        return parse(_exactly(connection, length, deadline))


def is_ready(address: str, cluster: str | None = None, timeout: float = 1.0) -> bool:
    """Return whether a living broker answers at `HOST:PORT[,HOST:PORT…]`, and is of `cluster` if that is given."""
    for one in address.split(","):
        try:
            metadata = ask(one, timeout)
        except (OSError, ValueError):
            continue
        if metadata.brokers and cluster in (None, metadata.cluster):
            return True
    return False


async def answers(address: str, timeout: float = 30.0, cluster: str | None = None) -> bool:
    """Wait until a living broker answers at `address`; return False when `timeout` s have passed."""
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(is_ready, address, cluster):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(INTERVAL)
    return True


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
