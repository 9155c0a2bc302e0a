"""What tasks that run have printed so far: read from `upon.output`, the newest of each kept in memory, for who looks.

    upon.output ─▶ pieces of each task (bounded) ─▶ GET /v1/tasks/ID/output, again and again: what is behind a place
    a result    ─▶ the rest, of the end that it holds

Nothing here is stored. A service that starts reads what Kafka has still (an hour), beside its other work.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from upon.errors import InputError
from upon.ids import task_of
from upon.kafka.follow import follow
from upon.logs import get_logger
from upon.messages import decode
from upon.printed import COMPARED, OutputBatch, OutputPiece, left_out, split_dropped
from upon.service.store.projection import Changes
from upon.topics import Topics

LOOK_BACK = 3600
"""Seconds of the past that are read at the start: as long as Kafka keeps them."""
OF_ONE, OF_ALL = 64 * 1024, 16 * 1024 * 1024
"""Bytes that are kept of one task's output, and of all."""
log = get_logger(__name__)


class Extract(NamedTuple):
    """What an attempt has printed from one place up to another, with a line where something is left out."""

    attempt: int
    start: int
    end: int
    text: str


@dataclass(slots=True)
class Kept:
    """The newest pieces of one attempt, in order."""

    attempt: int
    pieces: deque[OutputPiece] = field(default_factory=deque)
    size: int = 0

    def add(self, piece: OutputPiece) -> None:
        if self.pieces and piece.start < self.pieces[-1].end:
            return  # it was read before
        self.pieces.append(piece)
        self.size += len(piece.text)
        while self.size > OF_ONE and len(self.pieces) > 1:
            self.size -= len(self.pieces.popleft().text)


class Outputs:
    """The output of the tasks that run, as far as it is known.

    Args:
        kafka: bootstrap address.
        topics: the deployment's topics.
    """

    def __init__(self, kafka: str, topics: Topics) -> None:
        self._kafka, self._topics = kafka, topics
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._size = 0
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            KafkaUnavailable: no broker answers at the start.
        """
        since = int((time.time() - LOOK_BACK) * 1000)
        topic, spec_of = self._topics.output, self._topics.spec_of
        await follow(self._kafka, "upon-service-output", [topic], self._take, since=since, spec_of=spec_of)

    def of(self, id: str) -> Kept | None:
        """Return what is known of an invocation's output."""
        return self._kept.get(id)

    @contextmanager
    def waiting(self, task: str) -> Iterator[asyncio.Event]:
        """Have an event that is set when there may be something new of a task: output, or its end."""
        event = asyncio.Event()
        self._waiting[task].add(event)
        try:
            yield event
        finally:
            self._waiting[task].discard(event)
            if not self._waiting[task]:
                del self._waiting[task]

    def changed(self, changes: Changes) -> None:
        """Take note of tasks that changed in the store (a listener of the projector)."""
        if self._waiting:
            for id in changes.ids():
                self._wake(id)

    def _wake(self, task: str) -> None:
        for event in self._waiting.get(task, ()):
            event.set()

    def _take(self, record: Any) -> None:
        try:
            pieces = decode(record.value or b"", OutputBatch).pieces
        except InputError as error:
            log.info("passed over a record that cannot be read", action="output", reason=str(error))
            return
        for piece in pieces:
            self._add(piece)
            self._wake(task_of(piece.id)[0])

    def _add(self, piece: OutputPiece) -> None:
        kept = self._kept.get(piece.id)
        if kept is not None and piece.attempt < kept.attempt:
            return
        if kept is None or piece.attempt > kept.attempt:
            self._size -= kept.size if kept is not None else 0
            kept = self._kept[piece.id] = Kept(piece.attempt)
        self._kept.move_to_end(piece.id)
        self._size -= kept.size
        kept.add(piece)
        self._size += kept.size
        while self._size > OF_ALL:
            self._size -= self._kept.popitem(last=False)[1].size


def so_far(kept: Kept | None, attempt: int, since: int) -> Extract:
    """Return what a task that runs has printed behind a place of an attempt; of another attempt from its beginning."""
    if kept is None:
        return Extract(attempt, since, since, "")
    place = since = since if attempt == kept.attempt else 0
    text = ""
    for piece in kept.pieces:
        if piece.end <= place:
            continue
        text += _gap(text, max(0, piece.start - place))
        text += piece.text if piece.start >= place else _behind(piece.text, place - piece.start)
        place = piece.end
    return Extract(kept.attempt, since, place, text)


def in_the_end(kept: Kept | None, attempt: int, since: int, stdout: str) -> Extract:
    """Return what a task had printed behind a place when it ended; all of it, if that place is of another attempt.

    Args:
        stdout: as in its result.
    """
    dropped, ending = split_dropped(stdout)
    data = ending.encode(errors="replace")
    known = kept if kept is not None and _is_of(kept, dropped, data) else None
    if known is None or known.attempt != attempt:
        since = 0
    start = max(since, dropped)
    text = _gap("", start - since) + data[start - dropped :].decode(errors="replace")
    return Extract(known.attempt if known else 0, since, max(since, dropped + len(data)), text)


def _is_of(kept: Kept, dropped: int, data: bytes) -> bool:
    """Tell whether a result's output continues these pieces: the last one's end stands in it, at its place."""
    last = kept.pieces[-1]
    tail = last.text.encode(errors="replace")[-COMPARED:]
    end = last.end - dropped
    if end <= 0:
        return True  # what was printed since is more than a result keeps
    return end <= len(data) and data[:end][-len(tail) :] == tail[-end:]


def _gap(before: str, count: int) -> str:
    line = left_out(count)
    return f"\n{line}" if line and before and not before.endswith("\n") else line


def _behind(text: str, count: int) -> str:
    return text.encode(errors="replace")[count:].decode(errors="replace")
