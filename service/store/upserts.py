"""The statements that write into the task store, for SQLite and PostgreSQL.

The upserts do not depend on order: what a result says is final and the first result wins; `started` never turns that
back; an invocation fills in what a result left open.

A task that was tried again has a row for each generation in `generations`, written by the same statements, and the
newest of them stands in `tasks`. Not here: transactions (`store`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import (
    Connection,
    Insert,
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


class Upserts:
    """The statements of one kind of database: ``sqlite`` or ``postgresql``."""

    def __init__(self, dialect: str) -> None:
        self._upsert: Callable[..., Any] = sqlite.insert if dialect == "sqlite" else postgresql.insert
        self._tasks = self._of(tasks, ["id"])
        self._generations = self._of(generations, ["id", "generation"])
        self._bury: Insert = self._upsert(deadletters).on_conflict_do_nothing(index_elements=["id"])
        placed = self._upsert(positions)
        self._place: Insert = placed.on_conflict_do_update(
            index_elements=["topic", "partition"], set_={"next": placed.excluded["next"]}
        )
        self._resolve = (
            update(deadletters)
            .where(deadletters.c.id == bindparam("of_letter"), deadletters.c.status == "open")
            .values(status=bindparam("how"), resolved=bindparam("when"), resolved_by=bindparam("by"))
        )

    def write(self, connection: Connection, changes: Changes) -> None:
        """Apply changes and positions."""
        again = self._tried_again(connection, changes)
        rows = (changes.accepted, changes.started, changes.ended)
        usual = rows if not again else [[row for row in some if row["id"] not in again] for some in rows]
        for statement, some in zip(self._tasks, usual, strict=True):
            _run(connection, statement, some)
        if again:
            self._write_generations(connection, again, changes)
        _run(connection, self._bury, changes.dead)
        _run(connection, self._resolve, changes.resolved)
        self.place(connection, changes.positions)

    def place(self, connection: Connection, places: dict[tuple[str, int], int]) -> None:
        """Set the next offsets to take in."""
        _run(connection, self._place, [{"topic": t, "partition": p, "next": n} for (t, p), n in places.items()])

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
            _run(connection, statement, [row for row in every if row["id"] in again])
        for some in _chunks(again):
            newest = select(generations.c.id, func.max(generations.c.generation).label("generation"))
            last = newest.where(generations.c.id.in_(some)).group_by(generations.c.id).subquery()
            is_last = and_(generations.c.id == last.c.id, generations.c.generation == last.c.generation)
            connection.execute(delete(tasks).where(tasks.c.id.in_(some)))
            chosen = select(*(generations.c[name] for name in columns)).join(last, is_last)
            connection.execute(insert(tasks).from_select(columns, chosen))

    def _of(self, table: Table, key: list[str]) -> tuple[Insert, Insert, Insert]:
        """Return the statements for accepted, started and ended rows of a table."""
        # literals, for executemany takes no lists as parameters
        open_: list[Any] = [literal_column("'pending'"), literal_column("'running'")]
        unfinished = literal_column(f"{table.name}.status").in_(open_)
        unnamed = table.c.function == literal_column("''")  # a row that only a `started` has made
        accepted = self._upsert(table)
        filled = ("function", "version", "site", "principal", "group", "items", "submitted", "rule", "rule_revision",
                  "event_id", "subject", "cause", "partition", "record_offset", "accepted")  # fmt: skip
        accepted = accepted.on_conflict_do_update(
            index_elements=key,
            set_={name: accepted.excluded[name] for name in filled},
            where=table.c.accepted != true(),
        )
        started = self._upsert(table)
        started = started.on_conflict_do_update(
            index_elements=key,
            set_={name: started.excluded[name] for name in ("status", "started", "attempts", "worker")},
            where=unfinished & (table.c.attempts <= started.excluded.attempts),
        )
        ended = self._upsert(table)
        said = ("status", "attempts", "worker", "started", "finished", "stored", "error", "result")
        named = ("function", "version", "group", "items", "rule", "rule_revision", "event_id", "subject", "cause")
        ended = ended.on_conflict_do_update(
            index_elements=key,
            set_={name: ended.excluded[name] for name in said}
            | {name: case((unnamed, ended.excluded[name]), else_=table.c[name]) for name in named},
            where=unfinished,
        )
        return accepted, started, ended


def _run(connection: Connection, statement: Any, rows: list[Row]) -> None:
    if rows:
        connection.execute(statement, rows)


def _chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    every = sorted(ids)
    return (every[start : start + _IDS] for start in range(0, len(every), _IDS))
