"""The statements that write into the task store, for SQLite and PostgreSQL.

The upserts do not depend on order: what a result says is final and the first result wins; `started` never turns that
back; an invocation fills in what a result left open.

They are made into SQL once, and rows go to the driver as they are: through SQLAlchemy a row costs three times as much.

A task that was tried again has a row for each generation in `generations`, written by the same statements, and the
newest of them stands in `tasks`. Not here: transactions (`store`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Connection,
    Dialect,
    Executable,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from upon.service.store.projection import Changes, Row
from upon.service.store.tables import deadletters, generations, positions, tasks

_IDS = 500  # in one statement: databases limit their parameters

# literals, for a list cannot be a parameter of one statement for many rows
_OPEN: list[Any] = [literal_column("'pending'"), literal_column("'running'")]
_KEYED = ("id", "generation", "status")
_FILLED = ("function", "version", "site", "principal", "group", "items", "submitted", "rule", "rule_revision",
           "event_id", "subject", "cause", "partition", "record_offset", "accepted")  # fmt: skip
_SAID = ("status", "attempts", "worker", "started", "finished", "stored", "error", "result")
_NAMED = ("function", "version", "group", "items", "rule", "rule_revision", "event_id", "subject", "cause")
_LETTER = ("id", "at", "record", "origin", "part", "reason", "rule", "action", "event_id", "function", "site", "size")


class Statement:
    """A statement as SQL text, and how its rows become parameters.

    Args:
        statement: a write.
        names: of the values in a row that it takes; it may name more as bound parameters.
        dialect: of the database.
    """

    def __init__(self, statement: Any, names: Iterable[str], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=[*names])
        self._sql = str(compiled)
        self._parameters: Callable[[Row], Any] = lambda row: row  # named ones
        if compiled.positional:
            self._parameters = itemgetter(*compiled.positiontup)

    def run(self, connection: Connection, rows: list[Row]) -> int:
        """Run it for each row; return how many rows of the table it wrote."""
        if not rows:
            return 0
        parameters = [*map(self._parameters, rows)]
        options = {"preserve_rowcount": True}
        return connection.exec_driver_sql(self._sql, parameters, execution_options=options).rowcount


class Upserts:
    """The statements of one kind of database."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._upsert: Callable[..., Any] = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
        self._tasks = self._of(tasks, ["id"])
        self._generations = self._of(generations, ["id", "generation"])
        self._end = self._statement(
            update(tasks).where(tasks.c.id == bindparam("id"), tasks.c.accepted == true(), tasks.c.status.in_(_OPEN)),
            _SAID,
        )
        letters = self._upsert(deadletters).on_conflict_do_nothing(index_elements=["id"])
        self._bury = self._statement(letters, _LETTER)
        placed = self._upsert(positions)
        placed = placed.on_conflict_do_update(
            index_elements=["topic", "partition"], set_={"next": placed.excluded["next"]}
        )
        self._place = self._statement(placed, [column.name for column in positions.c])
        resolved = (
            update(deadletters)
            .where(deadletters.c.id == bindparam("of_letter"), deadletters.c.status == literal_column("'open'"))
            .values(status=bindparam("how"), resolved=bindparam("when"), resolved_by=bindparam("by"))
        )
        self._resolve = self._statement(resolved, [])

    def write(self, connection: Connection, changes: Changes) -> None:
        """Apply changes and positions."""
        again = self._tried_again(connection, changes)
        rows = (changes.accepted, changes.started, changes.ended)
        usual = rows if not again else [[row for row in some if row["id"] not in again] for some in rows]
        accepted, started, ended = usual
        self._tasks[0].run(connection, accepted)
        self._tasks[1].run(connection, started)
        # Most tasks that end were accepted before and have all but their outcome: a third of the upsert's work.
        if self._end.run(connection, ended) < len(ended):
            self._tasks[2].run(connection, ended)
        if again:
            self._write_generations(connection, again, changes)
        self._bury.run(connection, changes.dead)
        self._resolve.run(connection, changes.resolved)
        self.place(connection, changes.positions)

    def place(self, connection: Connection, places: dict[tuple[str, int], int]) -> None:
        """Set the next offsets to take in."""
        self._place.run(connection, [{"topic": t, "partition": p, "next": n} for (t, p), n in places.items()])

    def _tried_again(self, connection: Connection, changes: Changes) -> set[str]:
        """Return which of the tasks that change have, or now get, more than one generation."""
        rows = [row for some in (changes.accepted, changes.started, changes.ended) for row in some]
        again = {row["id"] for row in rows if row["generation"]}
        if rows and connection.execute(select(generations.c.id).limit(1)).first() is not None:
            for some in _chunks({row["id"] for row in rows}):
                again |= set(connection.execute(select(generations.c.id).where(generations.c.id.in_(some))).scalars())
        return again

    def _write_generations(self, connection: Connection, again: set[str], changes: Changes) -> None:
        columns = [column.name for column in generations.c]
        for some in _chunks(again):
            here = select(*(tasks.c[name] for name in columns)).where(tasks.c.id.in_(some))
            copied = self._upsert(generations).from_select(columns, here)
            connection.execute(copied.on_conflict_do_nothing(index_elements=["id", "generation"]))
        rows = (changes.accepted, changes.started, changes.ended)
        for statement, every in zip(self._generations, rows, strict=True):
            statement.run(connection, [row for row in every if row["id"] in again])
        for some in _chunks(again):
            newest = select(generations.c.id, func.max(generations.c.generation).label("generation"))
            last = newest.where(generations.c.id.in_(some)).group_by(generations.c.id).subquery()
            is_last = and_(generations.c.id == last.c.id, generations.c.generation == last.c.generation)
            connection.execute(delete(tasks).where(tasks.c.id.in_(some)))
            chosen = select(*(generations.c[name] for name in columns)).join(last, is_last)
            connection.execute(insert(tasks).from_select(columns, chosen))

    def _statement(self, statement: Executable, names: Iterable[str]) -> Statement:
        return Statement(statement, names, self._dialect)

    def _of(self, table: Table, key: list[str]) -> tuple[Statement, Statement, Statement]:
        """Return the statements for accepted, started and ended rows of a table."""
        unfinished = literal_column(f"{table.name}.status").in_(_OPEN)
        unnamed = table.c.function == literal_column("''")  # a row that only a `started` has made
        accepted = self._upsert(table)
        accepted = accepted.on_conflict_do_update(
            index_elements=key,
            set_={name: accepted.excluded[name] for name in _FILLED},
            where=table.c.accepted != true(),
        )
        started = self._upsert(table)
        started = started.on_conflict_do_update(
            index_elements=key,
            set_={name: started.excluded[name] for name in ("status", "started", "attempts", "worker")},
            where=unfinished & (table.c.attempts <= started.excluded.attempts),
        )
        ended = self._upsert(table)
        ended = ended.on_conflict_do_update(
            index_elements=key,
            set_={name: ended.excluded[name] for name in _SAID}
            | {name: case((unnamed, ended.excluded[name]), else_=table.c[name]) for name in _NAMED},
            where=unfinished,
        )
        return (
            self._statement(accepted, _KEYED + _FILLED),
            self._statement(started, (*_KEYED, "site", "submitted", "accepted", "started", "attempts", "worker")),
            self._statement(ended, (*_KEYED, "site", "submitted", "accepted", *_SAID[1:], *_NAMED)),
        )


def _chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    every = sorted(ids)
    return (every[start : start + _IDS] for start in range(0, len(every), _IDS))
