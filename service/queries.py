"""What is asked of the task store. Each function takes an open connection and returns rows; `Store.read` runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, literal, select
from sqlalchemy.sql.expression import ColumnElement

from upon.messages import FINAL, Result, decode
from upon.service.tables import deadletters, tasks

MAX_IDS = 500
"""Ids in one statement: databases limit their parameters."""

LISTED = [column for column in tasks.c if column.name not in ("result", "accepted", "stored")]
"""What a listing reads: all but the result, which may be large."""


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; None = any."""

    status: str | None = None
    rule: str | None = None
    function: str | None = None
    version: int | None = None
    site: str | None = None


def list_tasks(connection: Connection, wanted: TaskFilter, limit: int) -> Sequence[Row[Any]]:
    """Return the newest tasks that match, at most `limit`."""
    query = select(*LISTED).order_by(tasks.c.submitted.desc()).limit(limit)
    for name in ("rule", "function", "version", "site"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(tasks.c[name] == value)
    if wanted.status is not None:
        query = query.where(tasks.c.status == wanted.status)
        if wanted.status != "succeeded":
            # spelled as in the partial index `tasks_unusual`, or it is not used
            unusual: ColumnElement[bool] = tasks.c.status != literal("succeeded", literal_execute=True)
            query = query.where(unusual)
    return connection.execute(query).all()


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


def get_results(connection: Connection, ids: Sequence[str]) -> list[Result]:
    """Return the results that are there of at most `MAX_IDS` tasks."""
    query = select(tasks.c.result).where(tasks.c.id.in_(ids), tasks.c.status.in_(FINAL))
    return [decode(result, Result) for (result,) in connection.execute(query) if result is not None]


def list_deadletters(connection: Connection, limit: int) -> Sequence[bytes]:
    """Return the newest dead letters' records, at most `limit`."""
    query = select(deadletters.c.record).order_by(deadletters.c.at.desc()).limit(limit)
    return connection.execute(query).scalars().all()
