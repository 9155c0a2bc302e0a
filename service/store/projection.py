"""From Kafka records to rows of the task store: pure, no I/O.

    InvocationBatch  → accepted rows      the task is known: pending
    ResultBatch      → started rows       it runs, if nothing final is known of it
                     → ended rows         its outcome; the first one wins
    DeadLetter       → dead rows
    Resolved         → resolved rows      somebody dealt with these letters

Guarantee: applied in any order and any number of times, the rows end the same (the SQL in `upon.service.store.upserts`
holds up the other half of that). A record that cannot be read, or of which a row cannot be stored, becomes `bad`; its
other rows are taken. Whatever it holds, the rows made here fit SQLite and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from aiokafka import ConsumerRecord

from upon import api
from upon.errors import InputError
from upon.ids import task_of
from upon.messages import (
    FINAL,
    Cause,
    DeadLetter,
    DeadLetterRecord,
    Invocation,
    InvocationBatch,
    Resolved,
    Result,
    ResultBatch,
    Started,
    decode,
    encode,
)
from upon.topics import Topics

T = TypeVar("T")
Row = dict[str, Any]
Positions = dict[tuple[str, int], int]

MAX_ID = 200
"""Characters of a task's or a dead letter's id; a longer one is no id."""
MAX_NAME = 400
"""Characters of a name that are stored in a column of its own: a key of PostgreSQL's indexes holds 2,700 bytes."""
MAX_MESSAGE, MAX_TRACEBACK = 20_000, 200_000
"""Characters of an error's message (its beginning) and of its traceback (its end)."""
_MAX_INTEGER = 2**63 - 1
_UNCAUSED: Row = {"rule": None, "rule_revision": None, "event_id": None, "subject": None, "cause": None}
_pack = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Bad:
    """A record that could not be read, with the reason."""

    record: ConsumerRecord
    reason: str


@dataclass(slots=True)
class Changes:
    """What a run of records changes in the store, and how far it brings it."""

    accepted: list[Row] = field(default_factory=list)
    started: list[Row] = field(default_factory=list)
    ended: list[Row] = field(default_factory=list)
    dead: list[Row] = field(default_factory=list)
    resolved: list[Row] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    positions: Positions = field(default_factory=dict)

    def ids(self) -> list[str]:
        """Return the tasks that changed, in the order of their changes, each once."""
        return list(dict.fromkeys(row["id"] for rows in (self.accepted, self.started, self.ended) for row in rows))


def project(records: Iterable[ConsumerRecord], topics: Topics, now: int) -> Changes:
    """Return what `records` change; `now` (ns) is when they are stored."""
    changes = Changes()
    for record in records:
        try:
            _take(changes, record, topics, now)
        except InputError as error:
            changes.bad.append(Bad(record, f"{type(error).__name__}: {error}"))
        changes.positions[record.topic, record.partition] = record.offset + 1
    return changes


def _take(changes: Changes, record: ConsumerRecord, topics: Topics, now: int) -> None:
    value = record.value or b""
    if record.topic == topics.results:
        batch = decode(value, ResultBatch)
        _each(changes, record, changes.started, batch.begun(), lambda one: _started(one, batch.site))
        _each(changes, record, changes.ended, batch.results, lambda one: _ended(one, batch.site, now))
    elif record.topic == topics.deadletter:
        letter: DeadLetterRecord = decode(value, DeadLetterRecord)  # type: ignore[arg-type]
        if isinstance(letter, Resolved):
            changes.resolved += [
                {"of_letter": _text(id), "how": letter.how, "when": _integer(letter.at), "by": _name(letter.principal)}
                for id in letter.ids
            ]
        else:
            changes.dead.append(_dead(letter, value, record.timestamp * 10**6))
    else:
        accepted = decode(value, InvocationBatch)
        shared: Row = {
            "status": "pending",
            "site": _name(accepted.site),
            "principal": _name(accepted.principal),
            "group": _name(accepted.group),
            "submitted": _integer(accepted.submitted or record.timestamp * 10**6),
            "accepted": True,
            "partition": record.partition,
            "record_offset": record.offset,
        }
        _each(changes, record, changes.accepted, accepted.invocations, lambda one: _accepted(one, shared))


def _each(
    changes: Changes, record: ConsumerRecord, rows: list[Row], found: Iterable[T], row: Callable[[T], Row]
) -> None:
    """Add the row of each; what cannot be stored makes the record bad, once, and spoils no other."""
    for one in found:
        try:
            rows.append(row(one))
        except InputError as error:
            if not changes.bad or changes.bad[-1].record is not record:
                changes.bad.append(Bad(record, f"{type(error).__name__}: {error}"))


def _accepted(one: Invocation, shared: Row) -> Row:
    """Return the row of an invocation; `shared`: what it has in common with the others of its batch."""
    id, generation = _task(one.id)
    return {
        "id": id,
        "generation": generation,
        "function": _name(one.function),
        "version": _integer(one.version),
        "items": _integer(one.items),
        **shared,
        **_caused(one.cause),
    }


def _dead(letter: DeadLetter, value: bytes, recorded: int) -> Row:
    return {
        "id": _id(letter.id),
        "at": _integer(letter.at or recorded),
        "record": value,
        "origin": _name(letter.origin),
        "part": _name(letter.part),
        "reason": _text(letter.reason[:MAX_MESSAGE]),
        "rule": _name(letter.rule),
        "action": _name(letter.action),
        "event_id": _name(letter.event_id),
        "function": _name(letter.function),
        "site": _name(letter.site),
        "size": _integer(max(letter.size, len(letter.value))),
    }


def _started(one: Started, site: str) -> Row:
    id, generation = _task(one.id)
    return {
        "id": id,
        "generation": generation,
        "site": site,
        "status": "running",
        "started": _integer(one.started),
        "attempts": _integer(one.attempt),
        "worker": _name(one.worker),
        "submitted": _integer(one.started),  # until its invocation says better
        "accepted": False,
    }


def _ended(one: Result, site: str, now: int) -> Row:
    if one.status not in FINAL:
        raise InputError(f"result of {one.id} has status {one.status!r}, which is not final")
    id, generation = _task(one.id)
    failure, timings = one.failure, one.timings
    error = failure and api.TaskError(
        type=failure.type[:MAX_NAME],
        message=failure.message[:MAX_MESSAGE],
        traceback=failure.traceback[-MAX_TRACEBACK:],
    )
    return {
        "id": id,
        "generation": generation,
        "function": _name(one.function),
        "version": _integer(one.version),
        "site": site,
        "status": one.status,
        "group": _name(one.group),
        "items": _integer(one.items),
        "attempts": _integer(one.attempts),
        "worker": _name(one.worker),
        "submitted": _integer(timings.submitted),
        "started": _integer(timings.started),
        "finished": _integer(timings.finished or timings.returned or now),
        "stored": now,
        "accepted": False,
        "error": error and _pack(error),
        "result": encode(one),
        **_caused(one.cause),
    }


def _caused(cause: Cause | None) -> Row:
    if cause is None:
        return _UNCAUSED
    return {
        "rule": _name(cause.rule),
        "rule_revision": _integer(cause.rule_revision),
        "event_id": _name(cause.event_id),
        "subject": _name(cause.event_subject),
        "cause": encode(cause),
    }


# Called a dozen times for each task: what is usual is found out in one call.


def _task(invocation: str) -> tuple[str, int]:
    if 0 < len(invocation) <= MAX_ID and "#" not in invocation and "\x00" not in invocation:
        return invocation, 0
    task, generation = task_of(invocation)
    return _id(task), generation


def _id(value: str) -> str:
    if not value or len(value) > MAX_ID:
        raise InputError(f"an id has 1 to {MAX_ID} characters, not {len(value):,}: {value[:40]!r}")
    return _text(value)


def _name(value: str) -> str:
    if len(value) <= MAX_NAME and "\x00" not in value:
        return value
    return _text(value if len(value) <= MAX_NAME else value[: MAX_NAME - 1] + "…")


def _text(value: str) -> str:
    """PostgreSQL takes no NUL in a text."""
    return value if "\x00" not in value else value.replace("\x00", "\\x00")


def _integer(value: int) -> int:
    """A database's integers have 64 bits with sign; a record's may be larger."""
    return value if 0 <= value <= _MAX_INTEGER else _MAX_INTEGER if value > 0 else 0
