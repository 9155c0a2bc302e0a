"""What a dispatcher reads from Kafka, turned into inputs of its state machine.

    invocations.<site>   RecordRead, BadRecordRead     own group, offsets committed when results are stored
    control.<site>       CancelAsked                   from LOOK_BACK ago, so a cancel sent while we were away counts
    registry             CodeKnown, CodeGone           from the beginning, by `codes`
    results              what is done, what has begun  once, at the start (`recovery`)

The committed position names what is settled beyond it as well: that is passed over. Partitions are assigned by hand: a
dispatcher that was killed is followed by the next one without a session to wait for. So two dispatchers of one site are
not kept apart by Kafka; see docs/fabric.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from upon import requirements
from upon.deadletters import letter, received
from upon.dispatcher.decisions.instructions import BadRecordRead, CancelAsked, DrainAsked, RecordRead
from upon.errors import InputError, PayloadTooLarge
from upon.kafka.positions import Position
from upon.logs import get_logger
from upon.messages import FORMAT, MAX_DESCRIPTION, Cancel, Drain, Invocation, InvocationBatch, decode

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord, TopicPartition

    from upon.kafka.reader import Reader

log = get_logger(__name__)

LOOK_BACK = 24 * 3600.0
"""Seconds of results and cancels read at all."""
POLL_RECORDS = 50
"""Records taken at a time, so that managers are heard in between."""


def invocation_input(record: ConsumerRecord[Any, Any], site: str, now: int) -> RecordRead | BadRecordRead:
    """Return what a record of the invocations topic means; one that is none becomes a dead letter.

    Args:
        site: whose topic it is.
        now: ns since the epoch.
    """
    try:
        batch = decode(record.value or b"", InvocationBatch)
        for one in batch.invocations:
            requirements.check(one)
            if (beside := described(one) + len(batch.group)) > MAX_DESCRIPTION:
                raise PayloadTooLarge(
                    f"task {one.id[:100]}: names, retry and cause take {beside:,} characters, the limit is "
                    f"{MAX_DESCRIPTION:,}: its result would have no room for them"
                )
    except InputError as error:
        buried = letter(received(record), "dispatcher", f"{type(error).__name__}: {error}", now, site=site)
        return BadRecordRead(record.partition, record.offset, buried)
    return RecordRead(record.partition, record.offset, batch)


def described(invocation: Invocation) -> int:
    """Return how many characters an invocation has beside its payload."""
    texts = [invocation.id, invocation.code, invocation.function, *invocation.retry.on, *invocation.limits]
    if invocation.cause is not None:
        texts += [value for value in msgspec.structs.astuple(invocation.cause) if isinstance(value, str)]
    return sum(map(len, texts))


class _Kind(msgspec.Struct):
    """As much of a control record as tells which it is."""

    type: str = ""
    format: int = FORMAT


def control_input(record: ConsumerRecord[Any, Any]) -> CancelAsked | DrainAsked | None:
    """Return what a record of the control topic asks; None (and a line in the log) if it is none."""
    value = record.value or b""
    try:
        if decode(value, _Kind).type:
            drain = decode(value, Drain)
            return DrainAsked(drain.managers, drain.on)
        asked = decode(value, Cancel)
        return CancelAsked(asked.ids, asked.running)
    except InputError as error:
        log.warning(f"a control record was passed over: {error}", action="control", offset=record.offset)
        return None


class FromCommitted:
    """Begin where an earlier dispatcher has committed (a `Starts` of `upon.kafka.reader`).

    Attributes:
        begun: whether there is work that an earlier dispatcher may have begun.
        first: where nothing was committed before; committed, it tells the next dispatcher that there was one.
    """

    def __init__(self) -> None:
        self.begun = False
        self.first: dict[TopicPartition, Position] = {}

    async def __call__(self, reader: Reader, partitions: list[TopicPartition]) -> Mapping[TopicPartition, Position]:
        found = await reader.committed(partitions)
        self.begun = any(at.offset < reader.ends[one] for one, at in found.items())
        self.first = {one: Position(reader.begins[one]) for one in partitions if one not in found}
        return {**found, **self.first}
