"""Ports for a server that must come back at the same address.

They lie below the range from which the kernel takes the near ends of outgoing connections. A port inside it
could be taken while the broker is down, even by a client that keeps trying to reach the broker.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Collection
from pathlib import Path

import psutil

HOST = "127.0.0.1"
LOWEST = 10_000
EPHEMERAL = 32_768
"""Where Linux's range of ports for outgoing connections begins unless set otherwise."""


def is_free(port: int, host: str = HOST) -> bool:
    """Return whether a server could listen at this port of `host` (an address of this machine, or a name) now."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        return False
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError:
            return False
    return True


def free_port(avoid: Collection[int] = ()) -> int:
    """Return a port that is free now, none of `avoid`, outside the range of outgoing connections.

    Raises:
        OSError: a thousand tries found none.
    """
    for _ in range(1000):
        # `random` may be seeded: then all who ask would get the same ports in the same order.
        port = LOWEST + secrets.randbelow(max(_ephemeral_begin() - LOWEST, 1000))
        if port not in avoid and is_free(port):
            return port
    raise OSError(f"no free port on {HOST} between {LOWEST} and {_ephemeral_begin()}")


def owner(port: int) -> str:
    """Return who listens at a port, as `name, pid N`; empty if that cannot be told."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()}, pid {connection.pid}"
    except (psutil.Error, OSError):
        pass
    return ""


def _ephemeral_begin() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL
