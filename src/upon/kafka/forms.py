"""The forms of our records: how entries of each kind share one. Pure.

    WHOLE         one entry is one record: registry, sites, control, dead letters
    EVENTS        CloudEvents in JSON: structured when alone, a batch when several
    Invocations   of one site, group and principal: an InvocationBatch
    Results       of one site: a ResultBatch, of results and starts
    Outputs       of one site: an OutputBatch

Each entry is encoded once, when it is accepted: its size is known then, and joining copies bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from upon.events import BATCH, STRUCTURED
from upon.kafka.batches import Entry, Headers, Lane
from upon.messages import Invocation, InvocationBatch, Result, ResultBatch, Started, encode
from upon.printed import OutputBatch, OutputPiece

_ARRAYS = 16
"""Bytes of the heads of arrays, and of numbers that are longer than in an empty batch."""
LANES = 256
"""Lanes of which is remembered what they are: each entry asks for its lane anew, and making one takes 3 to 4 µs."""
_raw = msgspec.Raw


@dataclass(frozen=True, slots=True)
class Whole:
    """One entry is one record. Many are under way at once, in order. `headers`: of every record of the lane."""

    max_count: int = 1
    window: int = 256
    around: int = 0
    each: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()

    def join(self, entries: Sequence[Entry]) -> tuple[bytes | None, Headers]:
        return entries[0].body, list(self.headers)


def with_headers(headers: Sequence[tuple[str, bytes]]) -> Whole:
    """Return the form of whole records with these headers."""
    return Whole(around=sum(len(name.encode()) + len(data) + 8 for name, data in headers), headers=tuple(headers))


@dataclass(frozen=True, slots=True)
class Events:
    """CloudEvents in the JSON event format."""

    max_count: int = 500  # what a consumer takes up in one go
    window: int = 1
    around: int = 2 + len("content-type" + BATCH) + 8
    each: int = 1

    def join(self, entries: Sequence[Entry]) -> tuple[bytes | None, Headers]:
        if len(entries) == 1:
            return entries[0].body, [("content-type", STRUCTURED.encode())]
        return b"[" + b",".join(one.body or b"" for one in entries) + b"]", [("content-type", BATCH.encode())]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """A MessagePack record of many entries, of which one is under way at a time. `around`: its size without them."""

    around: int
    max_count: int = 2000
    window: int = 1
    each: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocations(_Batch):
    """A batch of invocations. `head`: the batch without them; its `submitted` becomes that of the first."""

    head: InvocationBatch

    def join(self, entries: Sequence[Entry]) -> tuple[bytes | None, Headers]:
        bodies: Any = tuple(_raw(one.body or b"") for one in entries)
        return encode(msgspec.structs.replace(self.head, submitted=entries[0].at, invocations=bodies)), []


@dataclass(frozen=True, slots=True, kw_only=True)
class Results(_Batch):
    """A batch of results and starts of one site. The `kind` of an entry is its list."""

    site: str

    def join(self, entries: Sequence[Entry]) -> tuple[bytes | None, Headers]:
        results: Any = tuple(_raw(one.body or b"") for one in entries if one.kind != STARTED)
        started: Any = tuple(_raw(one.body or b"") for one in entries if one.kind == STARTED)
        return encode(ResultBatch(site=self.site, results=results, started=started)), []


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs(_Batch):
    """A batch of pieces of one site's output."""

    site: str

    def join(self, entries: Sequence[Entry]) -> tuple[bytes | None, Headers]:
        pieces: Any = tuple(_raw(one.body or b"") for one in entries)
        return encode(OutputBatch(site=self.site, pieces=pieces)), []


WHOLE, EVENTS = Whole(), Events()
STARTED = "started"


@lru_cache(LANES)
def invocations_lane(topic: str, *, site: str, group: str, principal: str, code: str) -> Lane:
    """Return the lane of the invocations of one function from one sender; the record's key is the code's hash."""
    head = InvocationBatch(site=site, group=group, principal=principal, submitted=1 << 62, invocations=())
    return Lane(topic, Invocations(head=head, around=len(encode(head)) + _ARRAYS), code.encode())


def invocation_entry(invocation: Invocation, at: int) -> Entry:
    """Return an invocation as an entry; `at`: when it was accepted, ns since the epoch."""
    return Entry(encode(invocation), at=at)


@lru_cache(LANES)
def results_lane(topic: str, *, site: str, group: str) -> Lane:
    """Return the lane of a site's results for one group."""
    around = len(encode(ResultBatch(site=site))) + len("results" + "started") + _ARRAYS
    return Lane(topic, Results(site=site, around=around), group.encode() or None)


def result_entry(item: Result | Started) -> Entry:
    """Return a result or a start as an entry."""
    return Entry(encode(item), kind=STARTED if isinstance(item, Started) else "results")


def output_lane(topic: str, *, site: str) -> Lane:
    """Return the lane of what a site's tasks print: their pieces share records, in order."""
    around = len(encode(OutputBatch(site=site))) + len("pieces") + _ARRAYS
    return Lane(topic, Outputs(site=site, around=around), site.encode())


def output_entry(piece: OutputPiece) -> Entry:
    """Return a piece as an entry."""
    return Entry(encode(piece))
