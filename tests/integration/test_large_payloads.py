"""Arguments, results, items and exceptions that no record holds, through a whole system, and nobody notices."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.systems import System, wait_for
from upon import Client, Executor
from upon.errors import StoreError
from upon.store.files import FileStore

LARGE = 20_000_000
"""Bytes: more than a record holds."""


def blobs(home: Path) -> list[str]:
    return [one.key for one in FileStore(home / "store").list()]


def doubled(array: Any) -> Any:
    return array * 2


def test_large_arguments_and_results(system: System) -> None:
    array = np.arange(LARGE // 8, dtype=np.float64)
    with Executor(home=system.home) as executor:
        back = executor.submit(doubled, array).result(60)
        assert back.flags.writeable
        assert (back == array * 2).all()
        text = "ä" * LARGE
        assert executor.submit(lambda text, more: text + more["x"], text, more={"x": "!"}).result(60) == text + "!"
        many = [np.full(100_000, n, np.int64) for n in range(30)]
        assert [int(one.sum()) for one in executor.map(doubled, many, chunksize=10)] == [n * 200_000 for n in range(30)]
        whole = list(executor.map(doubled, [array, array + 1]))
        assert (whole[1] == array * 2 + 2).all()
    assert blobs(system.home) == []  # taken, every one


def test_nobody_but_client_and_worker_holds_them(system: System) -> None:
    size, mega = 200_000_000, 1_000_000
    array = np.ones(size, np.uint8)
    parts = {part: system.pids(part) for part in ("service", "dispatcher", "manager", "streams", "kafka", "workers")}
    with Executor(home=system.home) as executor:
        executor.submit(doubled, array[:10]).result(60)
        before = {pid: peak(pid, restart=True) for pids in [*parts.values(), [os.getpid()]] for pid in pids}
        back = executor.submit(doubled, array).result(60)
        grown = {part: max(peak(pid) - before[pid] for pid in pids) for part, pids in parts.items()}
        assert peak(os.getpid()) - before[os.getpid()] < size + 50 * mega
    assert int(back[-1]) == 2
    assert size < grown.pop("workers") < 2 * size + 50 * mega  # the argument and the value
    assert all(more < 50 * mega for more in grown.values()), grown


def peak(pid: int, *, restart: bool = False) -> int:
    """Return the most memory that a process has had, bytes; `restart`: what it has now counts as that from now on."""
    if restart:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def fail_at_first(array: Any, flag: str) -> Any:
    if not Path(flag).exists():
        Path(flag).touch()
        raise ValueError("at first")
    return array + 1


def test_what_failed_is_tried_again_with_its_arguments(system: System, tmp_path: Path) -> None:
    array = np.arange(LARGE // 8)
    with Executor(home=system.home) as executor, Client(home=system.home) as client:
        future = executor.submit(fail_at_first, array, str(tmp_path / "flag"))
        with pytest.raises(ValueError, match="at first"):
            future.result(60)
        wait_for(lambda: _ended(client, future.id), "that it has ended")
        system.run("tasks", "retry", future.id)
        wait_for(lambda: client.task(future.id).status == "succeeded", "that it has succeeded")
        assert (client.wait(future.id, 60) == array + 1).all()
    store = FileStore(system.home / "store")
    assert {key.partition(".")[0] for key in blobs(system.home)} == {future.id}
    for key in blobs(system.home):
        store.delete(key)


class Overexposed(Exception):
    def __init__(self, image: Any) -> None:
        super().__init__("overexposed")
        self.image = image


def expose(image: Any) -> None:
    raise Overexposed(image)


def expose_some(n: int) -> Any:
    image = np.full(LARGE, n % 256, np.uint8)
    if n % 2:
        raise Overexposed(image)
    return image


def test_large_exceptions(system: System) -> None:
    image = np.ones(LARGE, np.uint8)
    with Executor(home=system.home) as executor:
        future = executor.submit(expose, image)
        error = future.exception(60)
        assert isinstance(error, Overexposed)
        assert (error.image == image).all()
        items = executor.map(expose_some, range(4), chunksize=4)
        assert int(next(items)[0]) == 0
        with pytest.raises(Overexposed) as caught:
            next(items)
        assert int(caught.value.image[0]) == 1
        assert int(next(items)[0]) == 2
        with pytest.raises(Overexposed):
            next(items)
    left = blobs(system.home)
    assert [key.partition(".")[0] for key in left] == [future.id]  # its arguments, should somebody try again
    FileStore(system.home / "store").delete(left[0])


def total(values: list[int]) -> list[int]:
    return [sum(values), *values]


def test_a_registered_function_and_what_is_shown_of_its_result(system: System) -> None:
    values = list(range(4_000_000))
    with Client(home=system.home) as client:
        client.register(total, "large.total")
        future = client.invoke("large.total", values)
        expected = total(values)
        assert future.result(60) == expected
        assert client.wait(future.id, 60) == expected  # it is kept, for whoever asks
        shown = client.task(future.id).result
        assert shown["python"].startswith("[7999998000000, 0, 1,")
        assert shown["reference"]["bytes"] > 8_000_000
        assert shown["reference"]["key"] in blobs(system.home)
        said = system.run("tasks", "show", future.id).stdout
        assert f"by reference, {shown['reference']['bytes']:,} bytes: [7999998000000, 0, 1," in said
        as_json = json.loads(system.run("tasks", "show", future.id, "--json").stdout)
        assert as_json["result"] == shown
        listed = client.tasks(function="large.total", details=True)
        assert listed[0].result == shown
        use = client.summary().store
        assert use is not None
        assert use.payloads == len(blobs(system.home))
        assert use.place.endswith(f":{system.home}/store")
    assert f":{system.home}/store" in system.run("status").stdout
    assert f"GiB of large arguments and results in {system.home}/store" in system.run("doctor", check=False).stdout
    for key in blobs(system.home):
        FileStore(system.home / "store").delete(key)
    with (
        Client(home=system.home) as client,
        pytest.raises(StoreError, match=r"succeeded; its result cannot be had: .*freed"),
    ):
        client.wait(future.id, 60)


def test_a_client_that_does_not_see_the_folder(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content goes through the service, which does not hold it; a store of another system is not taken for ours."""
    array = np.ones(200_000_000, np.uint8)
    pids = [*system.pids("service"), *system.pids("dispatcher"), *system.pids("kafka")]
    for elsewhere in (tmp_path / "nothing", FileStore.make(tmp_path / "another").folder):
        monkeypatch.setenv("UPON_STORE", str(elsewhere))
        before = {pid: peak(pid, restart=True) for pid in pids}
        with Executor(home=system.home) as executor:
            assert (executor.submit(doubled, array).result(60) == array * 2).all()
            with pytest.raises(Overexposed):
                executor.submit(expose, array).result(60)
        assert all(peak(pid) - before[pid] < 50_000_000 for pid in pids)
        store = FileStore(system.home / "store")
        (left,) = store.list()  # the arguments of what failed
        store.delete(left.key)
    with Client(home=system.home) as client:
        future = client.invoke("large.total", list(range(3_000_000)))
        assert future.result(60)[0] == sum(range(3_000_000))
        for key in blobs(system.home):
            store.delete(key)
        with pytest.raises(StoreError, match=r"succeeded; its result cannot be had: .*freed"):
            client.wait(future.id, 60)


def test_of_an_upload_that_breaks_off_nothing_stays(system: System) -> None:
    host, port = system.status()["service"].removeprefix("http://").split(":")
    token = json.loads((system.home / "profile.json").read_text())["token"]
    head = f"PUT /v1/payloads/t.a0123456789abcdef HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Length: 5000000\r\n\r\n".encode() + bytes(1_000_000))
        wait_for(lambda: blobs(system.home), "a part that is being written")
    wait_for(lambda: not blobs(system.home), "that it is gone")
    for key in ("..%2F..%2Fetc%2Fpasswd", "store.json", "t.a0123456789abcdef.part"):
        with socket.create_connection((host, int(port))) as connection:
            hostile = head.replace("PUT", "GET").replace("t.a0123456789abcdef", key)
            connection.sendall(f"{hostile}Connection: close\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                assert b"no key of a store" in answer.read()


def _ended(client: Client, id: str) -> Any:
    task = client.task(id)
    return task if task.status in ("succeeded", "failed") else None
