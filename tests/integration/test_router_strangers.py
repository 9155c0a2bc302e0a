"""The dispatcher's port without keys: whatever comes, work goes on, and nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq

from upon.dispatcher import router as module
from upon.dispatcher.keys import dispatcher_keys, manager_keys
from upon.dispatcher.router import Router

GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0"
CURVE = GREETING + b"CURVE".ljust(20, b"\0") + b"\0" * 32
PATIENCE = 30.0


@pytest.fixture
async def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Router]:
    monkeypatch.setattr(module, "HANDSHAKE", 1.0)
    manager_keys(tmp_path)
    wake = asyncio.Event()
    opened = Router("", dispatcher_keys(tmp_path), tmp_path, wake.set)

    async def read() -> None:
        while True:
            await wake.wait()
            wake.clear()
            for said in opened.receive():
                if isinstance(said, tuple):
                    opened.send(said[0], said[1])
            if opened.pending():
                wake.set()
            await asyncio.sleep(0)

    reading = asyncio.create_task(read())
    yield opened
    reading.cancel()
    opened.close()


def say(place: tuple[str, int], words: list[bytes]) -> list[socket.socket]:
    opened = []
    for word in words:
        end = socket.create_connection(place, timeout=PATIENCE)
        end.sendall(word)
        opened.append(end)
    return opened


def round_trip(address: str, curve: Path) -> bytes:
    """Say something as a manager with a key does; return the answer."""
    keys = manager_keys(curve)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.ROUTING_ID, b"manager")
        dealer.setsockopt(zmq.CURVE_SERVERKEY, dispatcher_keys(curve).public)
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        dealer.connect(address)
        dealer.send(b"hello")
        assert dealer.poll(int(PATIENCE * 1000)), "no answer"
        return bytes(dealer.recv())


async def test_garbage_half_handshakes_and_silence(router: Router, tmp_path: Path) -> None:
    host, port = router.address.removeprefix("tcp://").split(":")
    chance = random.Random(7)
    kinds = [
        b"",
        GREETING,
        CURVE,
        CURVE + b"\4\xc8\5HELLO" + chance.randbytes(194),
        GREETING + b"NULL".ljust(20, b"\0") + b"\0" * 32 + chance.randbytes(100),
        GREETING + b"PLAIN".ljust(20, b"\0") + b"\0" * 32,
        b"\xff" * 9 + b"\x7f\3\0",
        b"GET / HTTP/1.1\r\n\r\n",
        chance.randbytes(300),
    ]
    before = len(os.listdir("/dev/fd"))
    strangers = await asyncio.to_thread(say, (host, int(port)), kinds * 30)
    assert await asyncio.to_thread(round_trip, router.address, tmp_path) == b"hello"
    async with asyncio.timeout(PATIENCE):  # they are still there, and yet the other ends are closed
        while len(os.listdir("/dev/fd")) > before + len(strangers) + 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    for end in strangers:
        end.close()
    assert set(router._by_fd.values()) <= {"manager"}
