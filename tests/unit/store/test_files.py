"""A store of files: whole or not at all, private, and with room left on the disk."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from upon.errors import InputError, StoreError
from upon.store import files
from upon.store.files import FileStore

KEY = "t.a0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore.make(tmp_path / "a" / "store")


def put(store: FileStore, key: str, data: bytes) -> None:
    part = store.put(key)
    part.write(data)
    part.commit()


def test_content_is_there_whole_or_not_at_all(store: FileStore) -> None:
    part = store.put(KEY)
    part.write(b"wrong")
    part.restart()
    part.write(b"right")
    with pytest.raises(StoreError, match="is not in the store"), store.get(KEY):
        pass
    (seen,) = store.list()
    assert re.fullmatch(rf"\.{KEY}\.[0-9a-f]{{8}}\.part", seen.key)
    again = store.put(KEY)  # somebody's second attempt, the first not ended yet
    part.discard()
    part = again
    part.write(b"right")
    part.commit()
    with store.get(KEY) as file:
        assert file.read() == b"right"
    assert [(one.key, one.size) for one in store.list()] == [(KEY, 5)]
    store.delete(KEY)
    store.delete(KEY)
    given_up = store.put(KEY)
    given_up.write(b"x")
    given_up.discard()
    assert list(store.list()) == []


def test_what_a_killed_writer_left_can_be_deleted(store: FileStore) -> None:
    store.put(KEY).write(b"x")
    (left,) = store.list()
    store.delete(left.key)
    assert list(store.list()) == []


def test_nobody_else_reads_it(store: FileStore) -> None:
    before = os.umask(0)
    try:
        put(store, KEY, b"x")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.folder.iterdir()}
    assert modes == {"store.json": 0o600, KEY: 0o600}
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "key", ["../x", "/etc/passwd", "store.json", "", "a/b", ".", f".{KEY}.part/../../x", ".x.part"]
)
def test_a_key_that_is_a_path_is_refused(store: FileStore, key: str) -> None:
    for use in (store.put, store.delete, lambda key: store.get(key).__enter__()):
        with pytest.raises(InputError, match="no key"):
            use(key)
    assert (store.folder / "store.json").exists()


def test_links_devices_and_folders_are_not_read(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    path = store.folder / KEY
    makes: list[Callable[[], object]] = [
        lambda: path.symlink_to(tmp_path / "secret"),
        lambda: os.mkfifo(path),
        path.mkdir,
    ]
    for make in makes:
        make()
        with pytest.raises(StoreError, match="is not in the store"), store.get(KEY):
            pass
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_of_many_that_make_it_one_does(tmp_path: Path) -> None:
    ids = []
    threads = [threading.Thread(target=lambda: ids.append(FileStore.make(tmp_path / "store").id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert os.listdir(tmp_path / "store") == ["store.json"]


def test_what_is_no_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="UPON_STORE"):
        FileStore(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        FileStore(tmp_path)
    with pytest.raises(StoreError, match="no store can be made"):
        FileStore.make(tmp_path / "store.json" / "x")


def test_a_store_that_goes_away(store: FileStore) -> None:
    store.folder.rename(store.folder.with_name("elsewhere"))
    with pytest.raises(StoreError, match=f"{KEY} cannot be written to the store at .*: No such file"):
        store.put(KEY)
    with pytest.raises(StoreError, match="cannot be listed"):
        list(store.list())


def test_a_disk_that_fills_is_said_and_nothing_is_left(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore.make(small_disk / "store")
    with pytest.raises(StoreError, match=r"disk is full.*UPON_STORE"):  # 96 MB: less than is left free
        store.put("t.a0000000000000002").write(b"x")
    monkeypatch.setattr(files, "RESERVE", 0)
    part = store.put("t.a0000000000000000")
    with pytest.raises(StoreError, match="disk is full"):
        part.write(bytes(200_000_000))
    part.discard()
    put(store, "t.a0000000000000001", b"there is room again")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="read-only"):
        store.put(KEY)


def test_a_store_is_freed_by_one_system(tmp_path: Path) -> None:
    store = FileStore.make(tmp_path / "store", "cluster/upon")
    assert FileStore.make(tmp_path / "store", "cluster/upon").id == store.id
    with pytest.raises(StoreError, match=r"another system .cluster/upon; this is other/upon.*UPON_STORE"):
        FileStore.make(tmp_path / "store", "other/upon")
    adopted = FileStore.make(tmp_path / "store", "other/upon", adopt=True)
    assert adopted.id == store.id
    assert FileStore(tmp_path / "store").owner == "other/upon"
    assert os.listdir(tmp_path / "store") == ["store.json"]
