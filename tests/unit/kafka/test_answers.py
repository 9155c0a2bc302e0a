"""The one Kafka request that is asked without a client library."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.kafka.answers import Metadata, answers, ask, coordinator_request, is_ready, parse, request


def encoded(metadata: Metadata) -> bytes:
    """What a broker sends for `metadata`, version 4, with no topics."""

    def string(text: str) -> bytes:
        return struct.pack(">h", len(text.encode())) + text.encode() if text else struct.pack(">h", -1)

    body = struct.pack(">iii", 1, 0, len(metadata.brokers))
    for node, host, port in metadata.brokers:
        body += struct.pack(">i", node) + string(host) + struct.pack(">i", port) + string("")
    return body + string(metadata.cluster) + struct.pack(">ii", metadata.controller, 0)


ALIVE = Metadata(((1, "127.0.0.1", 9092),), "MkU3OEVBNTcwNTJENDM2Qk", 1)
TEXT = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=30)
INT = st.integers(-1, 2**31 - 1)


@given(st.builds(Metadata, st.lists(st.tuples(INT, TEXT, INT), max_size=4).map(tuple), TEXT, INT))
def test_parse_reads_what_is_sent(metadata: Metadata) -> None:
    assert parse(encoded(metadata)) == metadata


@given(st.integers(0, len(encoded(ALIVE)) - 9))
def test_a_cut_response_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match="not a Kafka metadata response"):
        parse(encoded(ALIVE)[:length])


@given(st.binary(max_size=60))
def test_other_bytes_are_an_error_or_read(data: bytes) -> None:
    try:
        parse(data)
    except ValueError:
        return


@pytest.mark.parametrize("message", [request(), coordinator_request()])
def test_a_request_says_its_length(message: bytes) -> None:
    (length,) = struct.unpack_from(">i", message)
    assert len(message) == 4 + length


def serve(*replies: bytes) -> tuple[str, threading.Thread]:
    """A server that answers one connection after the other with `replies`."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with server:
            for reply in replies:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(reply)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return f"127.0.0.1:{server.getsockname()[1]}", thread


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def coordinator(error: int) -> bytes:
    return framed(struct.pack(">ihihi", 1, error, 1, -1, 9092))


@pytest.mark.parametrize(
    ("replies", "ready"),
    [
        ([framed(encoded(ALIVE)), coordinator(0)], True),
        ([framed(encoded(ALIVE)), coordinator(15)], False),  # the table of group positions is being made
        ([framed(encoded(Metadata((), ALIVE.cluster, -1)))], False),  # it listens, and knows no living broker yet
        ([framed(encoded(Metadata(ALIVE.brokers, "anotherCluster12345678", 1)))], False),
        ([framed(encoded(ALIVE)), framed(b"x")], False),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], False),
        ([b""], False),
    ],
)
def test_ready_is_a_living_broker_of_this_cluster(replies: list[bytes], ready: bool) -> None:
    address, thread = serve(*replies)
    assert is_ready(address, ALIVE.cluster, timeout=5) is ready
    thread.join(5)


def test_http_is_no_broker() -> None:
    address, thread = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ValueError, match="not a Kafka broker"):
        ask(address, 5)
    thread.join(5)


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not is_ready(f"127.0.0.1:{port}")
    assert await answers(f"127.0.0.1:{port}", timeout=0.1) is False
