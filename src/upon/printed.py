"""What a task has printed: pieces while it runs, the end of it with its result, and how the two fit together. Pure.

A byte's *place* counts from the beginning of what the attempt has printed, so a reader who has everything up to a
place can be given what comes behind it, whoever of us was started anew meanwhile. The end that a result has says in
its first line how many bytes it lacks.

    worker's file ─▶ manager: pieces ─▶ dispatcher ─▶ upon.output: OutputBatch ─▶ service: the newest of each
"""

from __future__ import annotations

import re

from upon.messages import Message

_DROPPED = re.compile(r"\[([0-9,]+) bytes before this were dropped\]\n")
_LONGEST = 4
"""Bytes of a character in UTF-8, at most."""
COMPARED = 1024
"""Bytes of a piece's end that must stand in a result at the same place, for both to be of one attempt."""


class OutputPiece(Message, frozen=True, kw_only=True):
    """Some of what an attempt of an invocation that runs has printed; what lies between two pieces was left out."""

    id: str
    attempt: int  # the dispatcher's number: a higher one is a later attempt
    start: int  # place of its first byte in all that the attempt has printed
    end: int  # place behind its last one
    text: str


class OutputBatch(Message, frozen=True, kw_only=True):
    """Pieces of the output of one site's tasks that travel in one record."""

    format: int = 1
    site: str
    pieces: tuple[OutputPiece, ...] = ()


def with_dropped(text: str, dropped: int) -> str:
    """Return the end of what a task has printed, with how many bytes of its beginning are not there."""
    return f"[{dropped:,} bytes before this were dropped]\n{text}" if dropped else text


def split_dropped(text: str) -> tuple[int, str]:
    """Return how many bytes are not there, and the end of what was printed: what `with_dropped` put together."""
    found = _DROPPED.match(text)
    return (int(found[1].replace(",", "")), text[found.end() :]) if found else (0, text)


def left_out(count: int) -> str:
    """Return the line that stands where bytes are not there."""
    return f"… {count:,} bytes left out\n" if count else ""


def whole_characters(data: bytes, *, at_start: bool) -> tuple[int, bytes]:
    """Return bytes without the character that is cut off at their end, and at their start.

    Args:
        at_start: whether their start may be in the middle of a character.

    Returns:
        How many bytes are gone from the start; the rest.
    """
    first = 0
    if at_start:
        while first < min(len(data), _LONGEST - 1) and data[first] & 0xC0 == 0x80:
            first += 1
    last = len(data)
    for back in range(1, min(_LONGEST, last - first) + 1):
        byte = data[last - back]
        if byte & 0xC0 != 0x80:
            if byte >= 0xC0 and back < _length(byte):
                last -= back
            break
    return first, data[first:last]


def _length(byte: int) -> int:
    """Return of how many bytes the character is that begins with this one."""
    return 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2
