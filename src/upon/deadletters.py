"""Dead letters: what could not be processed, why, and what it was about. Every part's letters are made here.

    letter(received, "streams", "CEL: …", now, rule="tomo", event_id="e-1") ─▶ DeadLetter, ready for upon.deadletter

Guarantees:
  - A letter's id is derived from where the record stood, which part gave up and what the letter is about. Read again,
    projected again or written twice, it is the same letter.
  - A letter always fits into a record: key, headers and value are kept whole if there is room, else cut; then `whole`
    is false, `size` and the reason say how much there was, and `origin` says where it still stands in Kafka.
  - A letter without its record (`without_record`: many rules that fail for one large event) is made whole again
    (`completed`) while Kafka has the record.
  - Whatever the record holds (no value, headers without a value, text that is no Unicode), there is a letter.

Pure. Not here: sending letters (each part's own way to Kafka), keeping and resolving them (`upon.service`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from upon.errors import EventError
from upon.events import STRUCTURED, Event, Headers, read_record
from upon.ids import dead_letter_id
from upon.messages import MAX_PAYLOAD, DeadLetter
from upon.topics import origin_of

ONLY_RULE = "upon-only-rule"
"""Header of an event published again from a dead letter: the one rule that it is for."""
MAX_REASON = 4_000
"""Characters of a reason that are kept."""
MAX_NAME = 500
"""Characters of a rule's, an event's, a function's, a site's name that are kept: they are for finding the letter."""
MAX_KEY = 64 * 1024
MAX_HEADERS = 256 * 1024
"""Bytes of key and headers that are kept; the value has the rest of the room."""
_TYPE = "content-type"


@dataclass(frozen=True, slots=True)
class Received:
    """A record as Kafka delivered it, or (partition -1) as Kafka would not take it.

    `recorded`: when Kafka had it, ns since the epoch; 0 = unknown.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    recorded: int = 0

    @property
    def origin(self) -> str:
        return origin_of(self.topic, self.partition, self.offset) if self.partition >= 0 else self.topic


def unwritten(topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> Received:
    """Return a record that never came into Kafka. Its letter needs `about`: it has no place to be named by."""
    return Received(topic, -1, -1, key, value, headers)


def received(record: Any) -> Received:
    """Return an aiokafka `ConsumerRecord` as data."""
    recorded = (record.timestamp or 0) * 1_000_000
    headers = with_values(record.headers or ())
    return Received(record.topic, record.partition, record.offset, record.key, record.value, headers, recorded)


def with_values(headers: Iterable[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    """Return headers as everything after Kafka takes them: one that has no value (Kafka allows it) has an empty one."""
    return tuple((_writable(name), data or b"") for name, data in headers)


def letter(
    record: Received,
    part: str,
    reason: str,
    now: int,
    *,
    about: str = "",
    room: int = MAX_PAYLOAD,
    rule: str = "",
    action: str = "",
    event_id: str = "",
    function: str = "",
    site: str = "",
) -> DeadLetter:
    """Return the dead letter about a record.

    Args:
        record: what could not be processed.
        part: who gives up: streams, dispatcher, service, sources.
        reason: the error's class and message.
        now: ns since the epoch.
        about: what tells this letter from others about the same record, beside rule and site; such as its position.
        room: bytes that key, headers and value may take together.
        rule, action, event_id, function, site: what it is about, as far as that is known.
    """
    value, key = record.value or b"", record.key or b""
    kept_key = key[: min(MAX_KEY, room)]
    kept_headers, taken = _bounded(record.headers, min(MAX_HEADERS, room - len(kept_key)))
    kept = value[: max(0, room - len(kept_key) - taken)]
    whole = (kept_key, kept, len(kept_headers)) == (key, value, len(tuple(record.headers)))
    if not whole:
        reason = f"{_cut(reason, MAX_REASON - 200)} (the record has {len(value):,} bytes, {len(kept):,} are kept here)"
    return DeadLetter(
        id=dead_letter_id(record.origin, part, "\x00".join((rule, action, site, about))),
        origin=record.origin,
        part=part,
        reason=_cut(reason, MAX_REASON),
        key=kept_key,
        value=kept,
        headers=kept_headers,
        at=now,
        rule=_cut(rule, MAX_NAME),
        action=_cut(action, MAX_NAME),
        event_id=_cut(event_id, MAX_NAME),
        function=_cut(function, MAX_NAME),
        site=_cut(site, MAX_NAME),
        size=len(value),
        whole=whole,
    )


def without_record(one: DeadLetter) -> DeadLetter:
    """Return a letter that names the place of its record and does not hold it."""
    reason = f"{_cut(one.reason, MAX_REASON - 200)} (the event is not kept here: it stands at {one.origin})"
    return msgspec.structs.replace(one, key=b"", value=b"", headers=(), whole=False, reason=reason)


def completed(one: DeadLetter, record: Received) -> DeadLetter | None:
    """Return a letter with its event, out of the record at its place; None if the event is not in that.

    The record may be another one: a topic that was deleted and made anew counts from 0.
    """
    several = is_batch(record)
    for position, event in enumerate(read_record(record.value, record.headers)):
        if isinstance(event, Event) and one.event_id and _cut(event.id, MAX_NAME) == one.event_id:
            whole = alone(record, position if several else None, event)
            headers = tuple(whole.headers)
            return msgspec.structs.replace(
                one, key=whole.key or b"", value=whole.value or b"", headers=headers, whole=True
            )
    return None


def is_batch(record: Received) -> bool:
    """Tell whether a record looks like a batch of events."""
    binary = any(name.lower() == "ce_specversion" for name, _ in record.headers)
    return not binary and (record.value or b"").lstrip()[:1] == b"["


def alone(record: Received, position: int | None, event: Event | EventError) -> Received:
    """Return the record that holds one event of a record alone, in structured form; it can be published as it is.

    Args:
        position: which one of a batch record; None when the record holds one event: it stays as it is then.
        event: the event, or why it is none.
    """
    if position is None:
        return record
    try:
        value = event.raw if isinstance(event, EventError) else msgspec.json.encode(event.to_dict())
    except (ValueError, TypeError, RecursionError):  # it came from JSON, but not everything goes back
        return record
    if not value:  # it only looked like a batch
        return record
    headers = [one for one in record.headers if one[0].lower() != _TYPE]
    return replace(record, value=value, headers=(*headers, (_TYPE, STRUCTURED.encode())))


def only_rule(headers: Headers) -> str | None:
    """Return the one rule that a record of `upon.events` is for; None: it is for all."""
    return next((data.decode(errors="replace") for name, data in headers if name == ONLY_RULE and data), None)


def _bounded(headers: Headers, room: int) -> tuple[tuple[tuple[str, bytes], ...], int]:
    """Return the first headers that `room` bytes hold, and the bytes that they take."""
    kept: list[tuple[str, bytes]] = []
    taken = 0
    for name, data in headers:
        size = len(name.encode()) + len(data)
        if taken + size > room:
            break
        kept.append((name, data))
        taken += size
    return tuple(kept), taken


def _cut(text: str, length: int) -> str:
    """Return text that can be written anywhere, at most `length` characters."""
    return _writable(text if len(text) <= length else text[: length - 1] + "…")


def _writable(text: str) -> str:
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
