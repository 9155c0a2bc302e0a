"""What is asked of the task store. Each function takes an open connection and returns rows; `Store.read` runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, func, literal, select, tuple_
from sqlalchemy.sql.expression import ColumnElement

from upon.errors import InputError
from upon.messages import FINAL, Result, decode
from upon.service.store.tables import deadletters, generations, tasks

MAX_IDS = 500
"""Ids in one statement: databases limit their parameters."""

LISTED = [column for column in tasks.c if column.name not in ("result", "accepted", "stored")]
"""What a listing reads: all but the result, which may be large."""
_ABOUT = [column for column in deadletters.c if column.name != "record"]


_UNUSUAL: ColumnElement[bool] = tasks.c.status != literal("succeeded", literal_execute=True)
"""Spelled as in the partial index `tasks_unusual`, or that is not used."""


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; None = any. `since`, `until`: when they were submitted, ns; `after`: behind this task."""

    statuses: tuple[str, ...] | None = None
    rule: str | None = None
    function: str | None = None
    version: int | None = None
    site: str | None = None
    group: str | None = None
    subject: str | None = None
    since: int | None = None
    until: int | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters; None = any. `reason`: a part of it. `since`, `until`: when it was given up, ns."""

    ids: tuple[str, ...] | None = None
    status: str | None = "open"
    rule: str | None = None
    reason: str | None = None
    since: int | None = None
    until: int | None = None
    after: str | None = None


def list_tasks(connection: Connection, wanted: TaskFilter, limit: int) -> Sequence[Row[Any]]:
    """Return the newest tasks that match, at most `limit`."""
    query = select(*LISTED).order_by(tasks.c.submitted.desc(), tasks.c.id.desc()).limit(limit)
    for name in ("rule", "function", "version", "site", "group", "subject"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(tasks.c[name] == value)
    if wanted.statuses is not None:
        if len(wanted.statuses) == 1:  # an equality: an index gives the rows in their order
            query = query.where(tasks.c.status == wanted.statuses[0])
        else:
            query = query.where(tasks.c.status.in_(wanted.statuses))
        if "succeeded" not in wanted.statuses:
            query = query.where(_UNUSUAL)
    query = query.where(*_between(tasks.c.submitted, wanted.since, wanted.until))
    if wanted.after is not None:
        query = query.where(_behind(connection, tasks, tasks.c.submitted, wanted.after))
    return connection.execute(query).all()


def _between(at: ColumnElement[int], since: int | None, until: int | None) -> list[ColumnElement[bool]]:
    return [*([] if since is None else [at >= since]), *([] if until is None else [at <= until])]


def _behind(connection: Connection, table: Table, at: ColumnElement[int], id: str) -> ColumnElement[bool]:
    """Return the condition of coming behind this row in a listing, newest first. Raises InputError."""
    found = connection.execute(select(at).where(table.c.id == id)).scalar()
    if found is None:
        raise InputError(f"after: there is no {id!r}; give the last id of the page before")
    return tuple_(at, table.c.id) < tuple_(literal(found), literal(id))


def find_tasks(connection: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return at most `MAX_IDS` tasks by id, without their results, in any order."""
    return connection.execute(select(*LISTED).where(tasks.c.id.in_(ids))).all()


def ends(connection: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return id, status and when the result came, of at most `MAX_IDS` tasks."""
    columns = [tasks.c[name] for name in ("id", "status", "stored")]
    return connection.execute(select(*columns).where(tasks.c.id.in_(ids))).all()


def get_small_results(connection: Connection, ids: Sequence[str], largest: int) -> dict[str, Result]:
    """Return the results of at most `MAX_IDS` tasks, of those that have at most `largest` bytes."""
    query = select(tasks.c.id, tasks.c.result).where(tasks.c.id.in_(ids), func.length(tasks.c.result) <= largest)
    return {id: decode(result, Result) for id, result in connection.execute(query)}


def get_generations(connection: Connection, id: str) -> Sequence[Row[Any]]:
    """Return what became of a task before it was tried again, oldest first."""
    columns = [column for column in generations.c if column.name not in ("result", "cause")]
    newest = select(func.max(generations.c.generation)).where(generations.c.id == id).scalar_subquery()
    query = select(*columns).where(generations.c.id == id, generations.c.generation < newest)
    return connection.execute(query.order_by(generations.c.generation)).all()


def count_unusual(connection: Connection) -> dict[str, int]:
    """Return how many tasks are pending, running, failed, cancelled. From an index, whatever there is besides."""
    query = select(tasks.c.status, func.count()).where(_UNUSUAL).group_by(tasks.c.status)
    return {row[0]: row[1] for row in connection.execute(query)}


def get_task(connection: Connection, id: str) -> Row[Any] | None:
    """Return a task with its result, or None."""
    return connection.execute(select(tasks).where(tasks.c.id == id)).one_or_none()


def get_tasks(connection: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return tasks with their results, in the order of `ids`; those that are not there are left out."""
    found: dict[str, Row[Any]] = {}
    for start in range(0, len(ids), MAX_IDS):
        query = select(tasks).where(tasks.c.id.in_(ids[start : start + MAX_IDS]))
        found |= {row.id: row for row in connection.execute(query)}
    return [found[id] for id in ids if id in found]


def ended_sizes(connection: Connection, ids: Sequence[str]) -> list[tuple[str, int]]:
    """Return which of at most `MAX_IDS` tasks have a result, and its size in bytes."""
    query = select(tasks.c.id, func.length(tasks.c.result)).where(tasks.c.id.in_(ids), tasks.c.status.in_(FINAL))
    return [(id, size or 0) for id, size in connection.execute(query)]


def running(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Return which of at most `MAX_IDS` tasks have begun and are not done, as far as is known."""
    query = select(tasks.c.id).where(tasks.c.id.in_(ids), tasks.c.status == "running")
    return list(connection.execute(query).scalars())


def get_results(connection: Connection, ids: Sequence[str]) -> list[bytes]:
    """Return the results that are there of at most `MAX_IDS` tasks, encoded."""
    query = select(tasks.c.result).where(tasks.c.id.in_(ids), tasks.c.status.in_(FINAL))
    return [result for (result,) in connection.execute(query) if result is not None]


def list_deadletters(connection: Connection, wanted: LetterFilter, limit: int) -> Sequence[Row[Any]]:
    """Return the newest dead letters that match, at most `limit`, without what they hold."""
    query = select(*_ABOUT).where(*_of_letters(wanted))
    query = query.order_by(deadletters.c.at.desc(), deadletters.c.id.desc()).limit(limit)
    if wanted.after is not None:
        query = query.where(_behind(connection, deadletters, deadletters.c.at, wanted.after))
    return connection.execute(query).all()


def find_deadletters(connection: Connection, beginning: str) -> Sequence[str]:
    """Return the ids of the dead letters whose id begins so; at most two: one is found, more are not told apart."""
    whole = connection.execute(select(deadletters.c.id).where(deadletters.c.id == beginning)).scalars().all()
    if whole:
        return whole
    begins = deadletters.c.id.startswith(beginning, autoescape=True)
    return connection.execute(select(deadletters.c.id).where(begins).limit(2)).scalars().all()


def get_deadletter(connection: Connection, id: str) -> Row[Any] | None:
    """Return a dead letter with its record, or None."""
    return connection.execute(select(deadletters).where(deadletters.c.id == id)).one_or_none()


def count_deadletters(connection: Connection, rule: str | None = None) -> int:
    """Return how many dead letters nobody has dealt with."""
    query = select(func.count()).select_from(deadletters).where(*_of_letters(LetterFilter(rule=rule)))
    return connection.execute(query).scalar_one()


def _of_letters(wanted: LetterFilter) -> list[ColumnElement[bool]]:
    where = _between(deadletters.c.at, wanted.since, wanted.until)
    if wanted.ids is not None:
        where.append(deadletters.c.id.in_(wanted.ids))
    if wanted.status is not None:
        where.append(deadletters.c.status == wanted.status)
    if wanted.rule is not None:
        where.append(deadletters.c.rule == wanted.rule)
    if wanted.reason is not None:
        where.append(deadletters.c.reason.contains(wanted.reason, autoescape=True))
    return where


def oldest_unfinished(connection: Connection) -> int:
    """Return when the oldest task that is not done was submitted, ns since the epoch; 0: all are done."""
    query = select(func.min(tasks.c.submitted)).where(_UNUSUAL, tasks.c.status.not_in(FINAL), tasks.c.submitted > 0)
    return connection.execute(query).scalar_one() or 0
