"""From records and rows to what the API shows (`upon.api`): pure. Nothing is ever unpickled here."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Row

from upon import api
from upon.errors import InputError, ServiceUnavailable
from upon.events import rfc3339
from upon.messages import (
    FINAL,
    Cause,
    DeadLetter,
    FunctionRecord,
    Result,
    RuleActivation,
    RuleRevision,
    SiteStatus,
    Timings,
    decode,
)
from upon.serialize import is_plain, loads_plain
from upon.store.reference import decode as decode_reference
from upon.store.reference import is_reference

SHOWN_VALUE, SHOWN_HEADER, SHOWN_HEADERS = 64 * 1024, 1024, 100
"""Bytes of a dead letter's value, of its key and of a header that are shown, and how many headers."""
LISTED_MESSAGE = 500
"""Characters of an error's message in a listing."""

M = TypeVar("M")
_unpack_error = msgspec.msgpack.Decoder(api.TaskError).decode


def moment(ns: int) -> str | None:
    """Return a time as RFC 3339, UTC, microseconds; None for 0 (not yet) and for what no calendar has."""
    if not ns:
        return None
    try:
        return rfc3339(ns)
    except (OverflowError, ValueError, OSError):
        return None


def function(record: FunctionRecord) -> api.Function:
    return api.Function(
        name=record.name,
        version=record.version,
        code=record.code,
        description=record.description,
        source=record.source,
        python=record.python,
        principal=record.principal,
        created=moment(record.created) or "",
    )


def function_version(record: FunctionRecord, newest: bool, rules: Sequence[str]) -> api.FunctionVersion:
    return api.FunctionVersion(
        **msgspec.structs.asdict(function(record)),
        newest=newest,
        rules=list(rules),
        deleted=moment(record.deleted),
        deleted_by=record.deleted_by,
    )


def rule(revision: RuleRevision, activation: RuleActivation, since: int = 0, change: str = "") -> api.Rule:
    """Return a rule as it stands (or stood): its wording and what was said of it."""
    return api.Rule(
        name=revision.name,
        revision=activation.revision,
        epoch=activation.epoch,
        enabled=activation.enabled and revision.spec.get("enabled", True) is True,
        disabled_by_hand=not activation.enabled,
        spec=revision.spec,
        file=activation.file,
        principal=revision.principal,
        created=moment(revision.created) or "",
        since=moment(since) or "",
        change=change,
    )


def site(status: SiteStatus, up: bool) -> api.Site:
    """Return a site as seen now; `up`: `Registry.is_up`."""
    return api.Site(
        name=status.site,
        state="up" if up else "down",
        host=status.host,
        pid=status.pid,
        seen=moment(status.at) or "",
        queued=status.queued,
        running=status.running,
        draining=up and status.draining,
        remembered=status.remembered if up else 0,
        repeated=status.repeated,
        slots=sum(one.slots for one in status.managers) if up else 0,
        busy=sum(one.busy for one in status.managers) if up else 0,
        managers=[
            api.Manager(
                id=one.id,
                host=one.host,
                pid=one.pid,
                workers=list(one.workers),
                slots=one.slots,
                busy=one.busy,
                python=one.python,
            )
            for one in (status.managers if up else ())
        ],
        stragglers=[
            api.Straggler(
                id=one.id,
                function=one.function,
                worker=one.worker,
                started=moment(one.started) or "",
                ran=one.ran,
                usual=one.usual,
            )
            for one in (status.stragglers if up else ())
        ],
    )


def listed_task(row: Row[Any], usual: float | None = None) -> api.Task:
    """Return a task without result, timings, stdout and traceback, from a row of `queries.LISTED`.

    Args:
        usual: s that its function usually takes, if its site says that it runs far beyond it.
    """
    fields = _task(row)
    if (error := fields["error"]) is not None:
        fields["error"] = api.TaskError(type=error.type, message=error.message[:LISTED_MESSAGE], traceback="")
    return api.Task(**fields, usual=None if row.status in FINAL else usual)


def detailed_task(row: Row[Any], result: Result | None, usual: float | None = None) -> api.Task:
    """Return a task of a listing with its result and output; None: it has none, or it is too large to be listed."""
    shown = listed_task(row, usual)
    if result is not None:
        value = _value(result) if row.status == "succeeded" else None
        return msgspec.structs.replace(shown, result=value, stdout=result.stdout)
    if row.status == "succeeded":
        return msgspec.structs.replace(shown, result={"python": f"too large to be listed: upon tasks show {row.id}"})
    return shown


def whole_task(row: Row[Any], history: Sequence[Row[Any]] = (), printed: str = "") -> api.Task:
    """Return all that is known of a task; `printed`: so far, while it runs."""
    result = stored(row.result, Result) if row.result is not None else None
    cause = stored(row.cause, Cause) if row.cause is not None else None
    timings = result.timings if result is not None else Timings(started=row.started)
    return api.Task(
        **_task(row),
        result=_value(result) if result is not None and row.status == "succeeded" else None,
        timings=hops(cause, row.submitted, timings, row.stored),
        stdout=result.stdout if result is not None else printed,
        history=[generation(one) for one in history],
    )


def hops(cause: Cause | None, submitted: int, timings: Timings, stored: int) -> list[api.Hop]:
    """Return the steps of a task's way that have been taken, in their order."""
    steps = {
        "event": cause.event_time if cause else 0,
        "recorded": cause.event_recorded if cause else 0,
        "submitted": submitted,
        "received": timings.received,
        "dispatched": timings.dispatched,
        "started": timings.started,
        "finished": timings.finished,
        "returned": timings.returned,
        "stored": stored,
    }
    taken = [(name, ns, at) for name, ns in steps.items() if (at := moment(ns)) is not None]
    return [api.Hop(name=name, at=at, after=round((ns - taken[0][1]) / 1e6, 3)) for name, ns, at in taken]


def listed_letter(row: Row[Any]) -> api.DeadLetterView:
    """Return a dead letter without what it holds."""
    return api.DeadLetterView(**_letter(row))


def whole_letter(row: Row[Any]) -> api.DeadLetterView:
    """Return a dead letter with the beginning of what it holds."""
    letter = stored(row.record, DeadLetter)
    return api.DeadLetterView(
        **_letter(row),
        attempts=letter.attempts,
        key=_shown(letter.key, SHOWN_HEADER),
        value=_shown(letter.value, SHOWN_VALUE),
        headers={name: _shown(data, SHOWN_HEADER) for name, data in letter.headers[:SHOWN_HEADERS]},
    )


def generation(row: Row[Any]) -> api.Generation:
    """Return what became of a task before it was tried again."""
    return api.Generation(
        generation=row.generation,
        status=row.status,
        site=row.site,
        attempts=row.attempts,
        worker=row.worker,
        submitted=moment(row.submitted),
        started=moment(row.started),
        finished=moment(row.finished),
        error=_unpack_error(row.error) if row.error is not None else None,
    )


def stored(record: bytes, kind: type[M]) -> M:
    """Return a record that the store holds.

    Raises:
        ServiceUnavailable: it cannot be read; the request is not at fault.
    """
    try:
        return decode(record, kind)
    except InputError as error:
        raise ServiceUnavailable(
            f"the task store holds what cannot be read ({error}): its file may be damaged"
        ) from error


def _shown(data: bytes, length: int) -> str:
    text = data[:length].decode(errors="backslashreplace")
    return text if len(data) <= length else f"{text}… ({len(data):,} bytes)"


def _letter(row: Row[Any]) -> dict[str, Any]:
    about = ("id", "origin", "part", "reason", "rule", "action", "event_id", "function", "site", "status", "size")
    return {name: getattr(row, name) for name in about} | {
        "resolved": moment(row.resolved),
        "resolved_by": row.resolved_by,
        "at": moment(row.at) or "",
    }


def _task(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "function": row.function,
        "version": row.version,
        "site": row.site,
        "status": row.status,
        "rule": row.rule,
        "rule_revision": row.rule_revision,
        "event_id": row.event_id,
        "submitted": moment(row.submitted),
        "started": moment(row.started),
        "finished": moment(row.finished),
        "attempts": row.attempts,
        "items": row.items,
        "principal": row.principal,
        "worker": row.worker,
        "duration": round((row.finished - row.started) / 1e6, 3) if row.started and row.finished else None,
        "error": _unpack_error(row.error) if row.error is not None else None,
        "event": _event(stored(row.cause, Cause)) if row.cause is not None else None,
        "group": row.group,
        "generation": row.generation,
    }


def _event(cause: Cause) -> api.TaskCause:
    return api.TaskCause(
        id=cause.event_id,
        type=cause.event_type,
        source=cause.event_source,
        subject=cause.event_subject,
        time=moment(cause.event_time),
        root=cause.root or cause.event_id,
        depth=cause.depth,
    )


def _value(result: Result) -> Any:
    """Return a plain result as it is, any other by its repr; of one in the store also how large it is, and where."""
    if is_plain(result.payload):
        try:
            return loads_plain(result.payload)
        except (InputError, RecursionError):  # damaged, or nested deeper than JSON goes
            pass
    if is_reference(result.payload):
        with contextlib.suppress(InputError):
            found = decode_reference(result.payload)
            lies = {"bytes": found.size, "key": found.key, "place": found.place}
            return {"python": result.preview, "reference": lies}
    return {"python": result.preview}
