"""Identities: random for what a person asks, derived for what an event asks.

An invocation fired by a rule has an id computed from the rule and the event, so a replay or a redelivery
gives the same id, and whoever meets it twice can drop the second (docs/architecture.md, Guarantees).
"""

from __future__ import annotations

import os
import uuid

#: The name space of derived invocation ids. Changing it breaks deduplication across an upgrade.
RULE_INVOCATIONS = uuid.UUID("9c1fd1a2-4a52-5b0e-9f3e-6f1a2d9f4c11")

#: The name space of dead letters' ids.
DEAD_LETTERS = uuid.UUID("3b0f6f0e-51a5-5c0b-8d6a-2f6f6c1f7e52")


_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


def new_id() -> str:
    """Return a random id (UUIDv4, RFC 9562, 36 characters); a third of the time that `uuid` takes."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def rule_invocation_id(rule: str, action: str, epoch: int, once: str) -> str:
    """Return the id of the invocation that `action` of `rule` fires for the key `once`.

    Not the rule's revision: an edit of its description is no reason to run a thing again.

    Args:
        rule: the rule's name.
        action: the action's name within the rule.
        epoch: the rule's epoch, from 1; raised when somebody asks that it fires again.
        once: what makes two firings the same: the value of the rule's `once`, or source and id of the event.

    Returns:
        A UUIDv5 (RFC 9562), 36 characters; equal arguments give equal ids on every machine.
    """
    return str(uuid.uuid5(RULE_INVOCATIONS, f"{rule}\x00{action}\x00{epoch}\x00{once}"))


def dead_letter_id(origin: str, part: str, about: str) -> str:
    """Return the id of the dead letter that `part` writes about the record at `origin` (topic/partition/offset).

    Args:
        about: what tells it from other letters about the same record.

    Returns:
        A UUIDv5 (RFC 9562), 36 characters: whoever meets the record again writes the same letter.
    """
    return str(uuid.uuid5(DEAD_LETTERS, f"{origin}\x00{part}\x00{about}".encode(errors="backslashreplace").decode()))


def generation_id(task: str, generation: int) -> str:
    """Return the id of the invocation that does `task` again, for the `generation`-th time; 0 is the first: the task's.

    What is tried again by hand is a further invocation of the same task. It has an id of its own, so that whoever has
    done the earlier one does not take it for a repetition.
    """
    return f"{task}#{generation}" if generation else task


def task_of(invocation: str) -> tuple[str, int]:
    """Return the task that an invocation's id belongs to, and the generation. Any text is an id."""
    if "#" not in invocation:
        return invocation, 0
    task, _, number = invocation.rpartition("#")
    if task and number.isascii() and number.isdigit() and len(number) <= 6 and number[0] != "0":
        return task, int(number)
    return invocation, 0
