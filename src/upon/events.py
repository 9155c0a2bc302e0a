"""Events: CloudEvents 1.0, as Python values and as Kafka records.

Read: structured (`application/cloudevents+json`), batch (`application/cloudevents-batch+json`) and binary
(`ce_…` headers) form of the CloudEvents Kafka protocol binding, and bare JSON that is a structured event or an
array of them, because a foreign producer forgets the header. Written: structured, or batch under load.

Guarantee: one bad event in a batch does not spoil its neighbours. Not here: other formats (Avro, Protobuf).
Sources: CloudEvents spec v1.0.2; its Kafka protocol binding v1.0.2; its JSON event format v1.0.2.
"""

from __future__ import annotations

import base64
import re
import time as clock  # an event has a field of that name
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from upon.errors import EventError
from upon.ids import new_id

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
ATTRIBUTES = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64"}
)
_EXTENSION = re.compile(r"[a-z0-9]{1,64}")

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


class Event(Struct, frozen=True, kw_only=True):
    """One CloudEvents 1.0 event.

    Args:
        type: what happened, such as ``upon.file.ready``; not empty.
        source: where, a URI reference such as ``/lab/7``; not empty.
        subject: what it happened to, such as a path; order is kept per subject. Default none.
        data: any JSON value, or bytes. Default none.
        id: unique with `source`; default a random UUID.
        time: RFC 3339; default now, UTC, microseconds.
        datacontenttype: media type of `data`; default JSON when there is data.
        dataschema: URI of the schema of `data`; default none.
        extensions: further attributes; names of lower-case letters and digits, values str, int or bool.

    Raises:
        EventError: an attribute breaks the specification.
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
        for name in ("type", "source", "id"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise EventError(f"{name}: must be a non-empty string, not {value!r}")
        for name in ("subject", "time", "datacontenttype", "dataschema"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise EventError(f"{name}: must be a non-empty string if present, not {value!r}")
        if self.time is not None:
            time_ns(self.time)
        for name, value in self.extensions.items():
            if not _EXTENSION.fullmatch(name) or name in ATTRIBUTES:
                raise EventError(f"extension {name!r}: names have lower-case letters and digits only")
            if not isinstance(value, str | int | bool):
                raise EventError(f"extension {name!r}: must be a string, integer or boolean, not {value!r}")

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


def time_ns(time: str) -> int:
    """Return an RFC 3339 time as nanoseconds since the epoch.

    Raises:
        EventError: not an RFC 3339 time with a zone.
    """
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        moment = None  # type: ignore[assignment]
    if moment is None or moment.tzinfo is None:
        raise EventError(f"time: {time!r} is not an RFC 3339 time such as 2026-11-21T10:00:00Z")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


def from_dict(record: Any) -> Event:
    """Return the event that a JSON object holds.

    Raises:
        EventError: it is no CloudEvents 1.0 event; the message names the attribute.
    """
    if not isinstance(record, dict):
        raise EventError(f"an event is a JSON object, not {type(record).__name__}")
    version = record.get("specversion")
    if version != "1.0":
        raise EventError(f"specversion: must be '1.0', not {version!r}")
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


def read_record(value: bytes | None, headers: Headers | None) -> list[Event | EventError]:
    """Return the events that a Kafka record holds, in order; in place of each that is none, the error.

    A record that cannot be read at all gives one error.
    """
    named = {name.lower(): data for name, data in headers or ()}
    try:
        if "ce_specversion" in named:
            return [_read_binary(value, named)]
        if not value:
            raise EventError("an empty record is no event")
        try:
            record = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EventError(f"not JSON: {error}") from error
    except EventError as error:
        return [error]
    records = record if isinstance(record, list) else [record]
    return [_event_or_error(one) for one in records]


def _event_or_error(record: Any) -> Event | EventError:
    try:
        return from_dict(record)
    except EventError as error:
        return error


def _read_binary(value: bytes | None, headers: dict[str, bytes]) -> Event:
    try:
        attributes: dict[str, Any] = {n[3:]: data.decode() for n, data in headers.items() if n.startswith("ce_")}
        content_type = headers.get("content-type", b"").decode() or None
    except UnicodeDecodeError as error:
        raise EventError(f"headers: not UTF-8: {error}") from error
    if content_type:
        attributes["datacontenttype"] = content_type
    if value:
        if content_type is None or content_type.split(";")[0].strip().endswith(("/json", "+json")):
            try:
                attributes["data"] = msgspec.json.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise EventError(f"data: not JSON, though its content type is {content_type}: {error}") from error
        elif content_type.startswith("text/"):
            attributes["data"] = value.decode(errors="replace")
        else:
            attributes["data_base64"] = base64.b64encode(value).decode()
    return from_dict(attributes)


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
