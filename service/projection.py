"""From Kafka records to rows of the task store: pure, no I/O.

    InvocationBatch  → accepted rows      the task is known: pending
    ResultBatch      → started rows       it runs, if nothing final is known of it
                     → ended rows         its outcome; the first one wins
    DeadLetter       → dead rows

Guarantee: applied in any order and any number of times, the rows end the same (the SQL in `upon.service.store`
holds up the other half of that). A record that cannot be read becomes `bad`: it never stops the projection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import ConsumerRecord

from upon import api
from upon.errors import InputError
from upon.messages import (
    FINAL,
    Cause,
    DeadLetterRecord,
    InvocationBatch,
    Resolved,
    Result,
    ResultBatch,
    Started,
    decode,
    encode,
)
from upon.topics import Topics

Row = dict[str, Any]
Positions = dict[tuple[str, int], int]

_MAX_INTEGER = 2**63 - 1
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
        changes.started += [_started(one, batch.site) for one in batch.started]
        changes.ended += [_ended(one, batch.site, now) for one in batch.results]
    elif record.topic == topics.deadletter:
        letter: DeadLetterRecord = decode(value, DeadLetterRecord)  # type: ignore[arg-type]
        if isinstance(letter, Resolved):
            return
        changes.dead.append({"id": _text(letter.id), "at": _integer(letter.at or record.timestamp * 10**6),
                             "record": value})  # fmt: skip
    else:
        accepted = decode(value, InvocationBatch)
        changes.accepted += _accepted(accepted, accepted.submitted or record.timestamp * 10**6)


def _accepted(batch: InvocationBatch, submitted: int) -> list[Row]:
    site, principal, at = _text(batch.site), _text(batch.principal), _integer(submitted)
    return [
        {
            "id": _text(one.id),
            "function": _text(one.function),
            "version": _integer(one.version),
            "site": site,
            "status": "pending",
            "principal": principal,
            "items": _integer(one.items),
            "submitted": at,
            "accepted": True,
            **_caused(one.cause),
        }
        for one in batch.invocations
    ]


def _started(one: Started, site: str) -> Row:
    return {
        "id": _text(one.id),
        "site": _text(site),
        "status": "running",
        "started": _integer(one.started),
        "attempts": _integer(one.attempt),
        "worker": _text(one.worker),
        "submitted": _integer(one.started),  # until its invocation says better
        "accepted": False,
    }


def _ended(one: Result, site: str, now: int) -> Row:
    if one.status not in FINAL:
        raise InputError(f"result of {one.id} has status {one.status!r}, which is not final")
    failure = one.failure
    error = failure and api.TaskError(type=failure.type, message=failure.message, traceback=failure.traceback)
    return {
        "id": _text(one.id),
        "function": _text(one.function),
        "version": _integer(one.version),
        "site": _text(site),
        "status": one.status,
        "items": _integer(one.items),
        "attempts": _integer(one.attempts),
        "worker": _text(one.worker),
        "submitted": _integer(one.timings.submitted),
        "started": _integer(one.timings.started),
        "finished": _integer(one.timings.finished or one.timings.returned or now),
        "stored": now,
        "accepted": False,
        "error": error and _pack(error),
        "result": encode(one),
        **_caused(one.cause),
    }


def _caused(cause: Cause | None) -> Row:
    if cause is None:
        return {"rule": None, "rule_revision": None, "event_id": None, "cause": None}
    return {
        "rule": _text(cause.rule),
        "rule_revision": _integer(cause.rule_revision),
        "event_id": _text(cause.event_id),
        "cause": encode(cause),
    }


def _text(value: str) -> str:
    """PostgreSQL takes no NUL in a text."""
    return value if "\x00" not in value else value.replace("\x00", "\\x00")


def _integer(value: int) -> int:
    """A database's integers have 64 bits with sign; a record's may be larger."""
    return value if 0 <= value <= _MAX_INTEGER else _MAX_INTEGER if value > 0 else 0
