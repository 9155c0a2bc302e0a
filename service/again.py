"""What may be tried again, and how: dead letters and tasks. Pure.

a rule that could not fire for an event   the event is published again, for that rule alone (header ONLY_RULE);
                                          the invocation's id is derived from rule and event: it happens once
an event that could not be processed      published again, for all rules
anything else                             `CannotRetry`, which says what can be done

a task that failed or was cancelled       its invocation is sent again under the id of the next generation
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Row

from upon.deadletters import ONLY_RULE
from upon.errors import Conflict
from upon.events import Event, read_record
from upon.ids import generation_id
from upon.messages import DeadLetter, Invocation, InvocationBatch

RETRIED = ("failed", "cancelled")
"""What a task must be to be tried again."""


class CannotRetry(Conflict):
    """This cannot be tried again; the message says why, and what can be done."""


def event_again(letter: DeadLetter, rules: Collection[str]) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Return key, value and headers of the record that tries a dead letter's event again.

    Args:
        rules: the rules in force.

    Raises:
        CannotRetry: it is no event, not here whole, or of a rule that is not in force.
    """
    if letter.part == "dispatcher":
        raise CannotRetry(
            "an invocation that cannot be read cannot be sent again: whoever submitted it must do that, with "
            "an Upon of this version; `upon deadletters drop` when that is done"
        )
    if letter.part == "service":
        raise CannotRetry(
            "a result that cannot be read or stored: its task stays as it is; `upon tasks list` shows it, `upon tasks "
            "cancel` and `upon tasks retry` run it again"
        )
    if not letter.whole:
        raise CannotRetry(
            f"only {len(letter.value):,} of {letter.size:,} bytes are kept here; the record stood at {letter.origin}: "
            "have its source publish the event again"
        )
    if letter.rule and letter.rule not in rules:
        raise CannotRetry(f"rule {letter.rule} is not in force: apply it first (`upon rules apply FILE`)")
    found = list(read_record(letter.value, letter.headers))
    if not any(isinstance(one, Event) for one in found):
        raise CannotRetry(
            f"it is no event ({found[0] if found else 'an empty list'}): correct what published it, have it publish "
            "again, then `upon deadletters drop`"
        )
    headers = [one for one in letter.headers if one[0] != ONLY_RULE]
    if letter.rule:
        headers.append((ONLY_RULE, letter.rule.encode()))
    return letter.key, letter.value, headers


def invocation_again(row: Row[Any], batch: InvocationBatch) -> Invocation:
    """Return the invocation that does a task again.

    Args:
        row: the task.
        batch: the record that its newest invocation came in.

    Raises:
        CannotRetry: the invocation is not in that record.
    """
    newest = generation_id(row.id, row.generation)
    for one in batch.invocations:
        if one.id == newest:
            return msgspec.structs.replace(one, id=generation_id(row.id, row.generation + 1))
    raise CannotRetry("its invocation is not where it should be in Kafka: the topic was made anew; submit it again")


def check_task(row: Row[Any]) -> None:
    """Raise CannotRetry if a task cannot be tried again for what it is."""
    if row.status not in RETRIED:
        what = "it has succeeded" if row.status == "succeeded" else f"it is {row.status}: it is still to end"
        raise CannotRetry(f"{what}; only what failed or was cancelled is tried again")
    if row.record_offset < 0:
        raise CannotRetry("its invocation was not seen in Kafka; submit it again")
