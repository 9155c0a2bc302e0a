"""The dispatcher's port: without a key nothing stays, and a key opens no place but its own."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from upon.dispatcher import router as module
from upon.dispatcher.keys import allowed, dispatcher_keys, manager_keys
from upon.dispatcher.router import Router

GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0"
CURVE = GREETING + b"CURVE".ljust(20, b"\0") + b"\0" * 32
PATIENCE = 30.0


@pytest.fixture
async def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Router]:
    monkeypatch.setattr(module, "HANDSHAKE", 1.0)
    for name in ("manager", "a", "b", "c"):
        manager_keys(tmp_path, name)
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
    with dealer(address, curve) as end:
        end.send_multipart([b"manager", b"hello"])
        assert end.poll(int(PATIENCE * 1000)), "no answer"
        return bytes(end.recv())


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
    assert {peer.manager for peer in router._by_fd.values()} <= {"manager"}


@contextmanager
def dealer(address: str, curve: Path, key: str = "manager") -> Iterator[zmq.Socket[bytes]]:
    """A socket with a key of its own."""
    keys = manager_keys(curve, key)
    with zmq.Context() as context, context.socket(zmq.DEALER) as end:
        end.setsockopt(zmq.LINGER, 0)
        end.setsockopt(zmq.CURVE_SERVERKEY, dispatcher_keys(curve).public)
        end.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        end.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        end.connect(address)
        yield end


async def heard(end: zmq.Socket[bytes], *frames: bytes) -> list[bytes]:
    """Say something; return the answer."""
    end.send_multipart(list(frames))
    assert await asyncio.to_thread(end.poll, int(PATIENCE * 1000)), "no answer"
    return end.recv_multipart()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_id_belongs_to_the_key_that_had_it_first(
    router: Router, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = ""

    def said() -> str:
        nonlocal printed
        printed += capsys.readouterr().out
        return printed

    with dealer(router.address, tmp_path, "b") as other:
        with dealer(router.address, tmp_path, "a") as one:
            assert await heard(one, b"m1", b"mine") == [b"mine"]
            for _ in range(3):
                other.send_multipart([b"m1", b"stolen"])
            await until(lambda: "another key" in said())
            assert await heard(one, b"m1", b"still mine") == [b"still mine"]
            assert router.send("m1", [b"for m1"])
            assert await asyncio.to_thread(one.poll, int(PATIENCE * 1000))
            assert one.recv_multipart() == [b"for m1"]
        await until(lambda: list(router.broken()))
        other.send_multipart([b"m1", b"stolen after its end"])
        with dealer(router.address, tmp_path, "c") as third, dealer(router.address, tmp_path, "a") as again:
            assert await heard(again, b"m1", b"back") == [b"back"]
            assert await heard(third, b"m3", b"hello") == [b"hello"]
            third.send_multipart([b"m1", b"in another's name"])
            assert await heard(third, b"m3", b"its own") == [b"its own"]
            assert not again.poll(0)
        assert not other.poll(0), "it has got what was for another"
    assert said().count("another key") == 1, "a line a minute"


async def test_a_manager_is_locked_out_while_it_is_connected(router: Router, tmp_path: Path) -> None:
    with dealer(router.address, tmp_path, "a") as one, dealer(router.address, tmp_path, "b") as other:
        assert await heard(one, b"m1", b"1") == [b"1"]
        assert await heard(other, b"m2", b"2") == [b"2"]
        (tmp_path / "managers" / "a.key").unlink()
        await until(lambda: router._locked_out)
        assert router.locked_out() == ["m1"]
        one.send_multipart([b"m1", b"on"])
        assert await heard(other, b"m2", b"on") == [b"on"]
        assert not one.poll(0)


def test_keys_that_cannot_be_read_now_have_not_gone(tmp_path: Path) -> None:
    keys = manager_keys(tmp_path, "a")
    before = allowed(tmp_path)
    assert before == {keys.public: "a"}
    (tmp_path / "managers").rename(tmp_path / "away")
    assert allowed(tmp_path, before) == before
    (tmp_path / "managers").mkdir()
    (tmp_path / "managers" / "a.key").mkdir()  # reading it is an error
    assert allowed(tmp_path, before) == before
    (tmp_path / "managers" / "a.key").rmdir()
    assert allowed(tmp_path, before) == {}
