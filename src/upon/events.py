"""Events: CloudEvents 1.0, as Python values and as Kafka records.

Read: structured (`application/cloudevents+json`), batch (`application/cloudevents-batch+json`) and binary
(`ce_…` headers) form of the CloudEvents Kafka protocol binding, and bare JSON that is a structured event or an
array of them, because a foreign producer forgets the header. Written: structured, or batch under load.

Guarantees: whatever the bytes, reading gives events and errors; one bad event in a batch does not spoil its
neighbours; an event's attributes are bounded, so that they fit into keys, headers and what describes an invocation.
Not here: other formats (Avro, Protobuf); splitting a batch that does not parse (`upon.json_elements`).
Sources: CloudEvents spec v1.0.2; its Kafka protocol binding v1.0.2; its JSON event format v1.0.2; RFC 3339.
"""

from __future__ import annotations

import base64
import re
import time as clock  # an event has a field of that name
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from upon.errors import EventError
from upon.ids import new_id
from upon.json_elements import split_array

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
ATTRIBUTES = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"}
)
MAX_ATTRIBUTE = 8 * 1024
"""Bytes of one attribute in UTF-8 (a path on Linux has at most 4,096); what is larger belongs into `data`."""
_SURELY_FITS = MAX_ATTRIBUTE // 4  # characters
_EXTENSION = re.compile(r"[a-z0-9]{1,64}")
_RFC3339 = re.compile(
    r"([0-9]{4})-(0[1-9]|1[0-2])-([0-9]{2})[Tt]([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]|60)(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_DAYS_OF_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)

Headers = Sequence[tuple[str, bytes]]


def rfc3339(ns: int, timespec: Literal["milliseconds", "microseconds"] = "microseconds") -> str:
    """Return a time in ns since the epoch as RFC 3339, UTC, cut to `timespec`.

    Raises:
        OverflowError, ValueError, OSError: no calendar has it.
    """
    seconds, rest = divmod(ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def _now() -> str:
    return rfc3339(clock.time_ns())


def one_of(wanted: Iterable[str], found: str) -> bool:
    """Whether an attribute is one of these; a ``*`` at the end of one stands for anything."""
    return any(found.startswith(one[:-1]) if one.endswith("*") else found == one for one in wanted)


class Event(Struct, frozen=True, kw_only=True):
    """One CloudEvents 1.0 event.

    Args:
        type: what happened, such as ``upon.file.ready``; not empty.
        source: where, a URI reference such as ``/lab/7``; not empty.
        subject: what it happened to, such as a path; order is kept per subject. Default none.
        data: any JSON value, or bytes. Default none.
        id: unique with `source`; default a random UUID.
        time: RFC 3339, with an offset; default now, UTC, microseconds.
        datacontenttype: media type of `data`; default JSON when there is data.
        dataschema: URI of the schema of `data`; default none.
        extensions: further attributes; names of lower-case letters and digits, values str, int (64 bits) or bool.

    Raises:
        EventError: an attribute breaks the specification, contains NUL, or is larger than `MAX_ATTRIBUTE`.
    """

    type: str
    source: str
    subject: str | None = None
    data: Any = None
    id: str = field(default_factory=new_id)
    time: str | None = field(default_factory=_now)
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("type", self.type), ("source", self.source), ("id", self.id)):
            if not isinstance(value, str) or not value:
                raise EventError(f"{name}: must be a non-empty string, not {_shown(value)}")
            if len(value) > _SURELY_FITS or "\x00" in value:
                _check_text(name, value)
        for name in ("subject", "time", "datacontenttype", "dataschema"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, str) or not value:
                    raise EventError(f"{name}: must be a non-empty string if present, not {_shown(value)}")
                if len(value) > _SURELY_FITS or "\x00" in value:
                    _check_text(name, value)
        if self.time is not None:
            time_ns(self.time)
        for name, value in self.extensions.items():
            if not _EXTENSION.fullmatch(name) or name in ATTRIBUTES:
                raise EventError(f"extension {_shown(name)}: names have lower-case letters and digits only, at most 64")
            if isinstance(value, str):
                if len(value) > _SURELY_FITS or "\x00" in value:
                    _check_text(f"extension {name!r}", value)
            elif not isinstance(value, int) or not -(2**63) <= value < 2**63:
                raise EventError(
                    f"extension {name!r}: must be a string, integer of 64 bits or boolean, not {_shown(value)}"
                )

    @property
    def key(self) -> str | None:
        """The Kafka key: the `partitionkey` extension, else the subject. Order is kept per key."""
        key = self.extensions.get("partitionkey", self.subject)
        return None if key is None else str(key)

    def to_dict(self) -> dict[str, Any]:
        """Return the event in the JSON event format: extensions beside the attributes, bytes as base64."""
        out: dict[str, Any] = {"specversion": "1.0", "id": self.id, "source": self.source, "type": self.type}
        for name in ("subject", "time", "datacontenttype", "dataschema"):
            if (value := getattr(self, name)) is not None:
                out[name] = value
        out.update(self.extensions)
        if isinstance(self.data, bytes):
            out["data_base64"] = base64.b64encode(self.data).decode()
        elif self.data is not None:
            out["data"] = self.data
        return out


@lru_cache(maxsize=1024)  # asked when an event is read, and again for each rule that it fires
def time_ns(time: str) -> int:
    """Return an RFC 3339 time as nanoseconds since the epoch; any year from 0 to 9999, so it may exceed 64 bits.

    A leap second is the first second of the next day, as in POSIX. Digits beyond nanoseconds are cut.

    Raises:
        EventError: not a `date-time` of RFC 3339, section 5.6.
    """
    found = _RFC3339.fullmatch(time)
    if found is None:
        raise _no_time(time)
    year, month, day, hour, minute, second = map(int, found.group(1, 2, 3, 4, 5, 6))
    leap_year = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= day <= _DAYS_OF_MONTH[month - 1] + (month == 2 and leap_year):
        raise _no_time(time)
    minutes = _days(year, month, day) * 1440 + hour * 60 + minute
    if (sign := found[8]) is not None:
        offset = int(found[9]) * 60 + int(found[10])
        minutes += offset if sign == "-" else -offset
    if second == 60 and not _ends_a_month(minutes):
        raise _no_time(time)
    return (minutes * 60 + second) * 1_000_000_000 + int((found[7] or "")[:9].ljust(9, "0"))


def _no_time(time: str) -> EventError:
    return EventError(f"time: {_shown(time)} is not an RFC 3339 time such as 2026-11-21T10:00:00Z")


def _days(year: int, month: int, day: int) -> int:
    """Return days since 1970-01-01 in the Gregorian calendar, for years before 1 too (years begin in March here)."""
    year, month = (year - 1, month + 9) if month <= 2 else (year, month - 3)
    return year * 365 + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1 - 719_468


def _ends_a_month(minutes: int) -> bool:
    """Tell whether a minute since the epoch is the last one of a month: the only one that may have a leap second."""
    days, minute = divmod(minutes + 1, 1440)
    ordinal = days + 719_163
    return minute == 0 and 1 <= ordinal <= date.max.toordinal() and date.fromordinal(ordinal).day == 1


def from_dict(record: Any) -> Event:
    """Return the event that a JSON object holds.

    Raises:
        EventError: it is no CloudEvents 1.0 event; the message names the attribute.
    """
    if not isinstance(record, dict):
        raise EventError(f"an event is a JSON object, not {type(record).__name__}")
    version = record.get("specversion")
    if version != "1.0":
        raise EventError(f"specversion: must be '1.0', not {_shown(version)}")
    for name in ("id", "source", "type"):
        if name not in record:
            raise EventError(f"{name}: is required")
    data = record.get("data")
    if "data_base64" in record:
        if "data" in record:
            raise EventError("data and data_base64: an event has one of them")
        try:
            data = base64.b64decode(record["data_base64"], validate=True)
        except (ValueError, TypeError) as error:
            raise EventError(f"data_base64: not base64: {error}") from error
    return Event(
        type=record["type"],
        source=record["source"],
        subject=record.get("subject"),
        data=data,
        id=record["id"],
        time=record.get("time"),
        datacontenttype=record.get("datacontenttype"),
        dataschema=record.get("dataschema"),
        extensions={n: v for n, v in record.items() if n not in ATTRIBUTES and v is not None},
    )


def read_record(
    value: bytes | None, headers: Sequence[tuple[str, bytes | None]] | None
) -> Iterator[Event | EventError]:
    """Yield the events that a Kafka record holds, in order; in place of each that is none, the error.

    The error of one event of a batch has its JSON in `raw`. A record that cannot be read at all gives one error.
    """
    named = {name.lower(): data for name, data in headers or () if data is not None}
    try:
        if "ce_specversion" in named:
            yield _read_binary(value, named)
            return
        if not value:
            raise EventError("an empty record is no event")
        try:
            record = msgspec.json.decode(value)
        except _UNREADABLE as error:
            elements = split_array(value)
            if elements is None:
                raise EventError(f"not JSON: {error}") from error
        else:
            if not isinstance(record, list):
                yield from_dict(record)
                return
            elements = None
    except EventError as error:
        yield error
        return
    if elements is None:
        for one in record:
            yield _event_or_error(one)
    else:
        for raw in elements:
            yield _raw_event_or_error(raw)


def _event_or_error(record: Any) -> Event | EventError:
    try:
        return from_dict(record)
    except EventError as error:
        with suppress(*_UNREADABLE):
            error.raw = msgspec.json.encode(record)
        return error


def _raw_event_or_error(raw: bytes) -> Event | EventError:
    try:
        return from_dict(msgspec.json.decode(raw))
    except EventError as error:
        error.raw = raw
        return error
    except _UNREADABLE as error:
        bad = EventError(f"not JSON: {error}")
        bad.raw = raw
        return bad


def _read_binary(value: bytes | None, headers: dict[str, bytes]) -> Event:
    try:
        attributes: dict[str, Any] = {n[3:]: data.decode() for n, data in headers.items() if n.startswith("ce_")}
        content_type = headers.get("content-type", b"").decode() or None
    except UnicodeDecodeError as error:
        raise EventError(f"headers: not UTF-8: {error}") from error
    if not attributes.keys().isdisjoint(("data", "data_base64")):
        raise EventError("headers: the data of an event is the record's value, not a header")
    if content_type:
        attributes["datacontenttype"] = content_type
    if value:
        if content_type is None or content_type.split(";")[0].strip().endswith(("/json", "+json")):
            try:
                attributes["data"] = msgspec.json.decode(value)
            except _UNREADABLE as error:
                kind = _shown(content_type) if content_type else "not given"
                raise EventError(f"data: not JSON, though its content type is {kind}: {error}") from error
        elif content_type.startswith("text/"):
            attributes["data"] = value.decode(errors="replace")
        else:
            attributes["data_base64"] = base64.b64encode(value).decode()
    return from_dict(attributes)


def _check_text(name: str, value: str) -> None:
    if "\x00" in value:
        raise EventError(f"{name}: must not contain the character NUL")
    if (size := len(value.encode(errors="replace"))) > MAX_ATTRIBUTE:
        raise EventError(f"{name}: has {size:,} bytes, the limit is {MAX_ATTRIBUTE:,}; large values belong into data")


def _shown(value: Any) -> str:
    """Return a value as a message shows it: short, whatever its size."""
    match value:
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "…")
        case None | bool() | float():
            return repr(value)
        case int():
            return repr(value) if abs(value) < 2**64 else "an integer beyond 64 bits"
        case _:
            return f"a value of type {type(value).__name__}"


def write_record(events: Iterable[Event]) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return value and headers of the Kafka record that holds `events`: structured for one, batch for more.

    Raises:
        EventError: an event's data is not JSON-serializable.
    """
    records = [event.to_dict() for event in events]
    form, content = (STRUCTURED, records[0]) if len(records) == 1 else (BATCH, records)
    try:
        return msgspec.json.encode(content), [("content-type", form.encode())]
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise EventError(f"data: not JSON-serializable: {error}") from error
