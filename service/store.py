"""The task store: SQLite in the home folder, or PostgreSQL by URL. Opening it, and writing into it.

It is a projection of Kafka. Rows and the positions they came from are written in one transaction, so after any
crash the projection goes on exactly where the rows are. The upserts do not depend on order: what a result says is
final and the first result wins; `started` never turns that back; an invocation fills in what a result left open.

Not here: what the rows are (`projection`), reading (`queries`), who calls (`projector`). Nothing here is async:
a write runs in the projector's thread, reads in the threads of `Store.read`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Engine,
    Insert,
    case,
    create_engine,
    event,
    insert,
    inspect,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from upon.config import Settings
from upon.errors import ConfigError, ServiceUnavailable
from upon.service.projection import Changes, Positions
from upon.service.tables import FORM, deadletters, metadata, positions, projection, tasks

R = TypeVar("R")
READERS = 2
"""Threads that read, beside the one that writes."""


class Store:
    """An open task store.

    Args:
        url: SQLAlchemy URL: ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``.

    Raises:
        ConfigError: no such database, or another kind of database.
    """

    def __init__(self, url: str | URL) -> None:
        self._engine = _engine(url)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self._accept, self._start, self._end, self._bury, self._place = _upserts(self._engine.dialect.name)

    @property
    def address(self) -> str:
        """The URL, without its password."""
        return shown(self._engine.url)

    def open(self) -> None:
        """Make the tables that are not there; build the store anew if they are of another form.

        Raises:
            ConfigError: the database does not answer, or refuses.
        """
        try:
            with self._engine.begin() as connection:
                form = None
                if inspect(connection).has_table(projection.name):
                    form = connection.execute(select(projection.c.form)).scalar()
                if form not in (None, FORM):
                    metadata.drop_all(connection)
                metadata.create_all(connection)
                if form != FORM:
                    connection.execute(insert(projection).values(form=FORM))
        except SQLAlchemyError as error:
            raise ConfigError(f"the task store {self.address} cannot be opened: {reason(error)}") from error

    def positions(self) -> Positions:
        """Return how far the projection has come: the next offset of each partition."""
        with self._engine.connect() as connection:
            return {(topic, number): next_ for topic, number, next_ in connection.execute(select(positions))}

    def write(self, changes: Changes) -> None:
        """Apply changes and positions in one transaction.

        Raises:
            SQLAlchemyError: nothing was written.
        """
        with self._engine.begin() as connection:
            for statement, rows in (
                (self._accept, changes.accepted),
                (self._start, changes.started),
                (self._end, changes.ended),
                (self._bury, changes.dead),
                (self._place, [{"topic": t, "partition": p, "next": n} for (t, p), n in changes.positions.items()]),
            ):
                if rows:
                    connection.execute(statement, rows)

    async def read(self, query: Callable[..., R], *args: Any) -> R:
        """Run a function of `upon.service.queries` in a reader's thread.

        Raises:
            ServiceUnavailable: the database does not answer.
        """

        def run() -> R:
            with self._engine.connect() as connection:
                return query(connection, *args)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, run)
        except DBAPIError as error:
            raise ServiceUnavailable(f"the task store does not answer: {reason(error)}; ask again later") from error

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


def reason(error: SQLAlchemyError) -> str:
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
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    for pragma in (
        "journal_mode = WAL",  # readers do not wait for the writer
        "synchronous = NORMAL",  # rows and positions go back together after a power cut, and Kafka has them still
        "busy_timeout = 10000",
        "cache_size = -16000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _upserts(dialect: str) -> tuple[Insert, ...]:
    """Return the statements that apply accepted, started, ended and dead rows, and positions."""
    upsert: Any = sqlite.insert if dialect == "sqlite" else postgresql.insert
    # literals, for executemany takes no lists as parameters
    unfinished = literal_column("tasks.status").in_([literal_column(f"'{s}'") for s in ("pending", "running")])
    unnamed = tasks.c.function == literal_column("''")  # a row that only a `started` has made

    accepted = upsert(tasks)
    filled = ("function", "version", "site", "principal", "items", "submitted", "rule", "rule_revision", "event_id")
    accepted = accepted.on_conflict_do_update(
        index_elements=["id"],
        set_={name: accepted.excluded[name] for name in (*filled, "cause", "accepted")},
        where=tasks.c.accepted != true(),
    )
    started = upsert(tasks)
    started = started.on_conflict_do_update(
        index_elements=["id"],
        set_={name: started.excluded[name] for name in ("status", "started", "attempts", "worker")},
        where=unfinished & (tasks.c.attempts <= started.excluded.attempts),
    )
    ended = upsert(tasks)
    said = ("status", "attempts", "worker", "started", "finished", "stored", "error", "result")
    named = ("function", "version", "items", "rule", "rule_revision", "event_id", "cause")
    ended = ended.on_conflict_do_update(
        index_elements=["id"],
        set_={name: ended.excluded[name] for name in said}
        | {name: case((unnamed, ended.excluded[name]), else_=tasks.c[name]) for name in named},
        where=unfinished,
    )
    placed = upsert(positions)
    placed = placed.on_conflict_do_update(index_elements=["topic", "partition"], set_={"next": placed.excluded["next"]})
    return accepted, started, ended, upsert(deadletters).on_conflict_do_nothing(index_elements=["id"]), placed
