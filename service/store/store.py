"""The task store: SQLite in the home folder, or PostgreSQL by URL. Opening it, writing into it, making it anew.

It is a projection of Kafka. Rows and the positions they came from are written in one transaction, so after any
crash the projection goes on exactly where the rows are. Several services may project into one database: each
transaction holds the projection's lock and leaves out what another has taken in. So positions never go back, and
whichever service is killed, the others go on.

A SQLite file that is damaged or deleted, whoever meets that first, is moved aside (kept once, as `tasks.db.damaged`)
and made anew.

Not here: what the rows are (`projection`), the statements (`upserts`), reading (`queries`), who calls (`projector`).
Nothing here is async: a write runs in the projector's thread, reads in the threads of `Store.read`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from upon.config import Settings
from upon.errors import ConfigError, ServiceUnavailable
from upon.logs import get_logger
from upon.service.store import schema
from upon.service.store.faults import Fault, StoreDamaged, fault, is_locked
from upon.service.store.projection import Changes, Positions
from upon.service.store.tables import positions
from upon.service.store.turn import Turn
from upon.service.store.upserts import Upserts

R = TypeVar("R")
READERS = 2
"""Threads that read, beside the one that writes."""
LOCK_WAIT = 2.0
"""Seconds that SQLite waits for another process's lock before it says so."""
OPEN_WAIT = 20.0
"""Seconds that opening waits for another process's lock."""
DATABASE_ERRORS = (SQLAlchemyError, sqlite3.Error)
"""SQLite's own: a connection that is being set up is not SQLAlchemy's yet."""
_PROJECTION_LOCK = 0x75706F6E  # PostgreSQL's advisory lock of whoever writes; the number says "upon"
log = get_logger(__name__)


class Store:
    """An open task store.

    Args:
        url: SQLAlchemy URL: ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``.

    Raises:
        ConfigError: no such database, or another kind of database.
    """

    def __init__(self, url: str | URL) -> None:
        self._engine = _engine(url)
        self._sqlite = self._engine.dialect.name == "sqlite"
        database = self._engine.url.database
        self._file = Path(database) if self._sqlite and database and database != ":memory:" else None
        self._inode: int | None = None  # of the file that is open
        self.turn = Turn(self._engine, self._file)
        self.note = ""
        """What somebody who looks at the system should know of the store; empty: nothing."""
        self.built = 0
        """How often it was made anew, from nothing."""
        self.on_damage: Callable[[], None] = lambda: None
        """Called in the event loop when `read` or `change` meets damage."""
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self._upserts = Upserts(self._engine.dialect)

    @property
    def address(self) -> str:
        """The URL, without its password."""
        return shown(self._engine.url)

    def open(self) -> None:
        """Bring the tables up to date, or make them; a damaged SQLite file is moved aside and made anew.

        Raises:
            ConfigError: the database does not answer, refuses, is locked for good, or a newer Upon made it.
        """
        give_up = time.monotonic() + OPEN_WAIT
        told = moved = False
        while True:
            try:
                self._bring_up_to_date()
                return
            except Exception as error:
                if fault(error) is Fault.DAMAGED and self._file is not None and not moved:
                    self._move_aside(reason(error))
                    moved = True
                elif is_locked(error) and time.monotonic() < give_up:
                    if not told:
                        log.warning("waiting for the task store", action="store", reason=self.why(error))
                        told = True
                elif isinstance(error, DATABASE_ERRORS):
                    raise ConfigError(f"the task store {self.address} cannot be opened: {self.why(error)}") from error
                else:
                    raise

    def rebuild(self, why: str) -> None:
        """Move a damaged SQLite file aside and make an empty store in its place. Raises as `open`."""
        self._inode = None  # should this fail, what is there counts as damaged still
        self.built += 1
        self._move_aside(why)
        self.open()

    def positions(self) -> Positions:
        """Return how far the projection has come: the next offset of each partition. Raises as `write`."""
        with self._intact(), self._engine.connect() as connection:
            return _positions(connection)

    def write(self, change: Callable[[Positions], Changes]) -> None:
        """Apply changes and their positions in one transaction, while no other service writes.

        Args:
            change: gives the changes, told which offsets are the next to take in; another service may have come first.

        Raises:
            StoreDamaged: nothing was written, nor will be until `rebuild`.
            SQLAlchemyError: nothing was written. `upon.service.store.faults` tells what it means.
        """
        with self._intact(), self._writing() as connection:
            self._upserts.write(connection, change(_positions(connection)))

    def place(self, places: Positions) -> None:
        """Set positions, forward or back. Raises as `write`."""
        with self._intact(), self._writing() as connection:
            self._upserts.place(connection, places)

    async def change(self, statements: Callable[[Connection], R]) -> R:
        """Run statements in one transaction, while no other service writes, in a reader's thread. Raises as `read`."""

        def run() -> R:
            with self._intact(), self._writing() as connection:
                return statements(connection)

        return await self._in_thread(run)

    async def read(self, query: Callable[..., R], *args: Any) -> R:
        """Run a function of `upon.service.store.queries` in a reader's thread.

        Raises:
            ServiceUnavailable: the database does not answer, or is damaged and about to be made anew.
        """

        def run() -> R:
            with self._intact(), self._engine.connect() as connection:
                return query(connection, *args)

        return await self._in_thread(run)

    async def _in_thread(self, run: Callable[[], R]) -> R:
        inode = self._inode
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, run)
        except StoreDamaged as damage:
            if inode == self._inode:  # else it was made anew meanwhile
                self.on_damage()
            raise ServiceUnavailable(
                f"the task store is damaged ({damage}); it is built anew from Kafka: ask again soon"
            ) from damage
        except DATABASE_ERRORS as error:
            raise ServiceUnavailable(f"the task store does not answer: {self.why(error)}; ask again later") from error

    def why(self, error: Exception) -> str:
        """Return what the database said, with who holds its lock."""
        said = reason(error)
        if self._file is not None and is_locked(error):
            return f"{said}: {self._file} is locked by {_holders(self._file) or 'another process'}"
        return said

    def _bring_up_to_date(self) -> None:
        with self._engine.connect() as connection:
            current = schema.is_current(connection)
        if not current:
            with self._writing() as connection:  # of several services the first does it
                schema.bring_up_to_date(connection)
        if self._file is not None:
            self._inode = _inode(self._file)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that no other service writes beside."""
        with self._engine.connect().execution_options(upon_writes=True) as connection, connection.begin():
            if not self._sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PROJECTION_LOCK})
            yield connection

    @contextmanager
    def _intact(self) -> Iterator[None]:
        """Around whatever uses the store: damage is raised as `StoreDamaged`, wherever it is met."""
        try:
            if self._file is not None and _inode(self._file) != self._inode:
                raise StoreDamaged(f"{self._file} was deleted or replaced while it was open")
            yield
        except (*DATABASE_ERRORS, UnicodeDecodeError) as error:
            if self._file is not None and fault(error) is Fault.DAMAGED:
                raise StoreDamaged(reason(error)) from error
            raise

    def _move_aside(self, why: str) -> None:
        assert self._file is not None
        kept = self._file.with_name(f"{self._file.name}.damaged")
        self._engine.dispose()
        for suffix in ("", "-wal", "-shm"):
            there, aside = Path(f"{self._file}{suffix}"), Path(f"{kept}{suffix}")
            aside.unlink(missing_ok=True)
            if there.exists():
                os.replace(there, aside)
        at = time.strftime("%Y-%m-%d %H:%M:%S")
        self.note = f"the task store was damaged at {at} ({why}): built anew from Kafka, the old file is {kept}"
        log.error(
            "the task store is damaged, it is built anew from Kafka", action="rebuild", reason=why, kept=str(kept)
        )

    def close(self) -> None:
        """Close all connections, after the reads under way."""
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()


def store_url(settings: Settings) -> str:
    """Return the URL of the task store that the settings name; makes the folder of the default one."""
    if settings.database:
        return settings.database
    folder: Path = settings.places.service
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'tasks.db'}"


def shown(url: URL) -> str:
    """Return a URL as it may be seen by anybody: without its password, and its parameters, which may be one."""
    return url.set(query={}).render_as_string(hide_password=True)


def reason(error: Exception) -> str:
    """Return what a database said, on one line, without SQLAlchemy's frame around it."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _engine(url: str | URL) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        kind = parsed.get_backend_name()
        if kind not in ("sqlite", "postgresql"):
            raise ConfigError(f"database {shown(parsed)}: use sqlite:///FILE or postgresql://…")
        engine = create_engine(parsed, pool_size=READERS + 1, pool_pre_ping=kind == "postgresql")
    except (ArgumentError, ValueError):  # neither the URL nor what is said of it is shown: a password may be in it
        raise ConfigError(
            "setting database (environment UPON_DATABASE): no SQLAlchemy URL such as "
            "postgresql://USER:PASSWORD@HOST/NAME; characters such as / and @ in a password are written %2F and %40"
        ) from None
    except ImportError as error:
        raise ConfigError(f"database {shown(parsed)}: {error}; pip install 'upon[postgres]'") from error
    if kind == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    """Begin as SQLite means it, in place of the driver's guess; a writer takes its lock before it reads."""
    writes = connection.get_execution_options().get("upon_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins
    for pragma in (
        f"busy_timeout = {int(LOCK_WAIT * 1000)}",
        "journal_mode = WAL",  # readers do not wait for the writer
        "synchronous = NORMAL",  # rows and positions go back together after a power cut, and Kafka has them still
        "cache_size = -16000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _positions(connection: Connection) -> Positions:
    return {(topic, number): next_ for topic, number, next_ in connection.execute(select(positions))}


def _inode(file: Path) -> int:
    """Return which file is at a path; 0: none."""
    try:
        return os.stat(file).st_ino
    except FileNotFoundError:
        return 0


def _holders(file: Path) -> str:
    """Return the other processes that have a file open: who may hold its lock."""
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        try:
            if process.pid != os.getpid() and any(one.path == str(file) for one in process.open_files()):
                found.append(f"process {process.pid} ({process.info['name']})")
        except psutil.Error:
            continue
    return ", ".join(found)
