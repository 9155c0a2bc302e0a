"""Ports: free ones are found, taken ones seen, and a port of a broken-off connection counts as free."""

from __future__ import annotations

import os
import socket

from upon.embedded import ports


def test_a_listener_takes_its_port() -> None:
    port = ports.free_port()
    assert ports.is_free(port)
    with socket.create_server((ports.HOST, port)):
        assert not ports.is_free(port)
        assert f"pid {os.getpid()}" in ports.owner(port)
    assert ports.is_free(port)
    assert ports.owner(port) == ""


def test_a_listener_on_all_addresses_takes_it_too() -> None:
    port = ports.free_port()
    with socket.create_server(("", port)):
        assert not ports.is_free(port)


def test_a_connection_that_lingers_does_not_block() -> None:
    port = ports.free_port()
    server = socket.create_server((ports.HOST, port))
    client = socket.create_connection((ports.HOST, port))
    accepted, _ = server.accept()
    server.close()
    accepted.close()  # the near end now waits for the client: as after kill -9 of a broker
    assert ports.is_free(port)
    client.close()
    assert ports.is_free(port)  # and now it is in TIME_WAIT


def test_outside_the_range_of_outgoing_connections() -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        ephemeral = server.getsockname()[1]
    assert all(port < ephemeral or port < ports.EPHEMERAL for port in (ports.free_port() for _ in range(20)))


def test_avoided() -> None:
    first = ports.free_port()
    assert all(ports.free_port(avoid=[first]) != first for _ in range(50))
