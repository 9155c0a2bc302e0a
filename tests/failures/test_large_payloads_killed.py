"""Parts are killed while large payloads are under way: every result is right, and nothing stays in the store."""

from __future__ import annotations

import os
import time
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.systems import System, wait_for
from upon import Executor
from upon.store.files import FileStore

TASKS = 12
SIZE = 20_000_000
"""Bytes of each argument and of each result."""


def changed(image: Any, number: int, effects: str) -> Any:
    """Return another array, slowly enough that a fault meets some under way."""
    with open(effects, "a") as file:
        file.write(f"{number}\n")
    time.sleep(0.1)
    return image + number


@pytest.mark.parametrize("part", ["workers", "manager", "dispatcher", "service"])
def test_a_part_is_killed(system: System, tmp_path: Path, part: str) -> None:
    effects = tmp_path / "effects"
    image = np.arange(SIZE // 8)
    with Executor(home=system.home) as executor:
        futures = [executor.submit(changed, image, number, str(effects)) for number in range(TASKS)]
        next(as_completed(futures, timeout=60))
        system.kill(part)
        for number, future in enumerate(futures):
            assert (future.result(timeout=120) == image + number).all()
    begun = [int(line) for line in effects.read_text().splitlines()]
    assert set(begun) == set(range(TASKS))
    system.wait_up()
    left = list(FileStore(system.home / "store").list())
    # an attempt that was killed while it wrote its result
    assert len(left) <= len(begun) - TASKS
    for blob in left:
        FileStore(system.home / "store").delete(blob.key)


def test_a_client_is_killed_while_it_writes(system: System, tmp_path: Path) -> None:
    """What it wrote of an argument is a part, which nobody takes for content, and which goes after a day."""
    pid = os.fork()
    if pid == 0:  # a client that never gets to the end
        part = FileStore(system.home / "store").put("killed.a0123456789abcdef")
        part.write(bytes(SIZE))
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    store = FileStore(system.home / "store")
    (left,) = wait_for(lambda: list(store.list()), "what is left of it")
    assert left.key.startswith(".killed.a0123456789abcdef.")
    with Executor(home=system.home) as executor:
        assert executor.submit(len, bytes(SIZE)).result(60) == SIZE
    store.delete(left.key)
    assert list(store.list()) == []
