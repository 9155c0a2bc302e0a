"""Dead letters of the stream workers: what could not be processed, whole, with its reason.

A letter holds a record that can be published again as it is: the original one, or, of a batch record, the one event
that was bad, in structured form. Its id depends on where the record stood, so a redelivery gives the same letter.
Pure; not here: sending it (`upon.streams.outbox`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from upon.events import STRUCTURED, Event, Headers
from upon.ids import RULE_INVOCATIONS
from upon.messages import MAX_PAYLOAD, DeadLetter

_TYPE = "content-type"


@dataclass(frozen=True, slots=True)
class Received:
    """A record of `upon.events` as Kafka delivered it. `recorded`: when Kafka had it, ns since the epoch."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    recorded: int = 0

    @property
    def origin(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def letter(record: Received, reason: str, now: int, *, about: str = "") -> DeadLetter:
    """Return the dead letter for a whole record.

    Args:
        record: as Kafka delivered it.
        reason: the error's class and message.
        now: ns since the epoch.
        about: what tells this letter from others about the same record, such as the rule's name.
    """
    value = record.value or b""
    if len(value) > MAX_PAYLOAD:
        reason += f" (the record has {len(value):,} bytes; the first {MAX_PAYLOAD:,} are kept)"
        value = value[:MAX_PAYLOAD]
    return DeadLetter(
        id=str(uuid.uuid5(RULE_INVOCATIONS, f"deadletter\x00{record.origin}\x00{about}")),
        origin=record.origin,
        part="streams",
        reason=reason,
        key=record.key or b"",
        value=value,
        headers=tuple(record.headers),
        at=now,
    )


def letter_about_event(
    record: Received, position: int | None, event: Event | None, reason: str, now: int, *, about: str = ""
) -> DeadLetter:
    """Return the dead letter for one event of a record.

    Args:
        position: which one of a batch record; None when the record holds one event.
        event: the event; None when it is no event and its JSON must be taken from the record.
    """
    try:
        if position is None:
            return letter(record, reason, now, about=about)
        if event is not None:
            value = msgspec.json.encode(event.to_dict())
        else:
            value = msgspec.json.encode(msgspec.json.decode(record.value or b"")[position])
    except msgspec.DecodeError:  # it only looked like a batch
        return letter(record, reason, now, about=about)
    headers: Sequence[tuple[str, bytes]] = [one for one in record.headers if one[0].lower() != _TYPE]
    alone = Received(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=value,
        headers=(*headers, (_TYPE, STRUCTURED.encode())),
    )
    return letter(alone, reason, now, about=f"{position}\x00{about}")
