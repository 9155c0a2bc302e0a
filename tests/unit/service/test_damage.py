"""A task store that is damaged, deleted or locked: said, moved aside, made anew."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from tests.unit.service.test_projection import invoked, write
from upon.errors import ConfigError, ServiceUnavailable
from upon.service.retention import prune_some
from upon.service.store import store as store_module
from upon.service.store.faults import Fault, StoreDamaged, fault, is_locked
from upon.service.store.queries import TaskFilter, list_tasks
from upon.service.store.store import Store
from upon.service.store.tables import tasks


def opened(path: Path) -> Store:
    one = Store(f"sqlite:///{path}")
    one.open()
    return one


def test_what_is_no_database_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_bytes(b"not a database" * 1000)
    store = opened(path)
    assert store.positions() == {}
    assert (tmp_path / "tasks.db.damaged").read_bytes().startswith(b"not a database")
    assert "built anew from Kafka" in store.note
    write(store, invoked("a"))
    store.close()


async def test_a_reader_that_meets_damage_says_so_and_the_store_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    store = opened(path)
    for n in range(200):
        write(store, invoked(f"t{n}", function="f" * 300))
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(os.urandom(path.stat().st_size - 21 * 4096))
    store = opened(path)
    told: list[int] = []
    store.on_damage = lambda: told.append(1)
    with pytest.raises(ServiceUnavailable, match=r"is damaged .* built anew from Kafka"):
        await store.read(list_tasks, TaskFilter(), 1000)
    assert told
    store.rebuild("damaged")
    assert await store.read(list_tasks, TaskFilter(), 1000) == []
    assert store.positions() == {}
    store.close()


async def test_whoever_meets_damage_says_that_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    store = opened(path)
    write(store, *(invoked(f"t{n}") for n in range(100)))
    with store._engine.connect() as connection:
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    store._engine.dispose()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    told: list[int] = []
    store.on_damage = lambda: told.append(1)
    for use in (store.positions, lambda: store.place({("t", 0): 1}), lambda: write(store, invoked("more"))):
        with pytest.raises(StoreDamaged, match="malformed"):
            use()
    with pytest.raises(ServiceUnavailable, match=r"is damaged .* built anew from Kafka"):
        await store.change(lambda connection: prune_some(connection, tasks, tasks.c.submitted, 1, 1))
    assert told == [1]
    store.rebuild("damaged")
    assert store.positions() == {}
    store.close()


def test_a_store_that_could_not_be_made_anew_is_still_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    folder.mkdir()
    store = opened(folder / "tasks.db")
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match="unable to open database file"):
        store.rebuild("deleted")
    folder.mkdir()
    with pytest.raises(StoreDamaged):
        store.positions()
    store.rebuild("damaged")
    assert store.positions() == {}
    store.close()


def test_a_file_that_is_deleted_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    store = opened(path)
    write(store, invoked("a"))
    for one in tmp_path.iterdir():
        one.unlink()
    with pytest.raises(StoreDamaged, match="deleted or replaced"):
        write(store, invoked("b"))
    store.rebuild("deleted")
    write(store, invoked("b"))
    assert len(store.positions()) == 1
    store.close()


HOLDER = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_who_holds_the_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_WAIT", 0.1)
    monkeypatch.setattr(store_module, "OPEN_WAIT", 0.1)
    path = tmp_path / "tasks.db"
    store = opened(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OperationalError) as caught:
            write(store, invoked("a"))
        assert is_locked(caught.value)
        assert fault(caught.value) is Fault.AWAY
        assert f"is locked by process {holder.pid} (" in store.why(caught.value)
        assert holder.stdin is not None
        holder.stdin.close()
    write(store, invoked("a"))
    store.close()


def test_a_folder_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unable to open database file"):
        Store(f"sqlite:///{tmp_path / 'none' / 'tasks.db'}").open()


class _Postgres(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (OperationalError("s", {}, _Postgres("54000")), Fault.RECORD),  # an index row that is too large
        (DataError("s", {}, _Postgres(None)), Fault.RECORD),  # NUL in a text
        (DataError("s", {}, _Postgres("22003")), Fault.RECORD),
        (IntegrityError("s", {}, _Postgres("23502")), Fault.RECORD),
        (OperationalError("s", {}, UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no")), Fault.RECORD),
        (OperationalError("s", {}, OverflowError("too large")), Fault.RECORD),
        (OperationalError("s", {}, _Postgres("57P01")), Fault.AWAY),  # the server shuts down
        (OperationalError("s", {}, _Postgres("53100")), Fault.AWAY),  # its disk is full
        (OperationalError("s", {}, _Postgres("42P01")), Fault.AWAY),  # somebody dropped a table: no record's fault
        (OperationalError("s", {}, _Postgres(None)), Fault.AWAY),
        (StoreDamaged("x"), Fault.DAMAGED),
        (OperationalError("s", {}, sqlite3.OperationalError("Could not decode to UTF-8 column 'id'")), Fault.DAMAGED),
    ],
)
def test_whose_fault_it_is(error: Any, meant: Fault) -> None:
    assert fault(error) is meant
