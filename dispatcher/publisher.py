"""What a dispatcher writes to Kafka: results and starts, output, dead letters, the state of its site.

    result() ─▶ fitted to a record ─▶ outbox, the lane of its group ─▶ on_stored(ids)

Guarantees: `on_stored` is called for an id only after Kafka has its result (acks=all). A result that no record can
hold is stored as a failure that says so, in place of its value: the task ends, and nothing stands still behind it.
Output that Kafka does not take in time, or that is too much, is left out.

Not here: gathering, sending again (`upon.kafka.outbox`); offsets, and whether a result is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import msgspec

from upon.dispatcher.decisions.tasks import failure
from upon.errors import PayloadTooLarge
from upon.kafka.batches import ROOM, Entry, Lane, Place, check
from upon.kafka.forms import WHOLE, output_entry, output_lane, result_entry, results_lane
from upon.kafka.outbox import Outbox
from upon.logs import get_logger
from upon.messages import DeadLetter, Result, SiteStatus, Started, encode
from upon.printed import OutputPiece
from upon.topics import Topics

log = get_logger(__name__)

OUTPUT_WAITING = 1024 * 1024
"""Bytes of output that wait for Kafka, at most."""
OUTPUT_RATE = 2 * 1024 * 1024
"""Bytes of output that are written in a second, at most."""
KEPT_STDOUT = 10_000
"""Characters of its output that a result keeps which is too large for a record."""


class Publisher:
    """Writes results, starts, dead letters and the site's status.

    Args:
        outbox: started.
        topics, site: where to and who says it.
        on_stored: called in the event loop with the ids whose results Kafka has.
    """

    def __init__(self, outbox: Outbox, topics: Topics, site: str, on_stored: Callable[[tuple[str, ...]], None]) -> None:
        self._outbox, self._topics, self._site, self._on_stored = outbox, topics, site, on_stored
        self._stored: list[str] = []
        self._output_waits = 0  # bytes
        self._output_room, self._output_at = float(OUTPUT_RATE), time.monotonic()

    def result(self, result: Result) -> None:
        """Queue a result."""
        lane = self._lane(result.group)
        entry = fitted(result, lane)
        entry.then = partial(self._answered, result)
        self._post(lane, entry, result.id)

    def started(self, started: Started) -> None:
        """Queue the news that an invocation has begun."""
        self._post(self._lane(started.group), result_entry(started))

    def output(self, piece: OutputPiece) -> None:
        """Queue what a task has printed; what there is no room for is left out, as the next piece tells."""
        entry, now = output_entry(piece), time.monotonic()
        self._output_room = min(OUTPUT_RATE, self._output_room + (now - self._output_at) * OUTPUT_RATE)
        self._output_at = now
        if self._output_waits + entry.size > OUTPUT_WAITING or entry.size > self._output_room:
            return
        self._output_room -= entry.size
        self._output_waits += entry.size

        def written(_: Place | Exception, size: int = entry.size) -> None:
            self._output_waits -= size

        entry.then = written
        self._post(output_lane(self._topics.output, site=self._site), entry)

    def intent(self, started: Started, then: Callable[[], None]) -> None:
        """Queue that an attempt may begin; `then` is called when that is in Kafka."""

        def written(outcome: Place | Exception) -> None:
            if isinstance(outcome, Exception):
                log.warning("that a task may begin was refused", action="publish", task=started.id, error=str(outcome))
            then()

        entry = result_entry(started)
        entry.then = written
        self._post(self._lane(started.group), entry)

    def letter(self, letter: DeadLetter, then: Callable[[], None]) -> None:
        """Queue a dead letter; `then` is called when it is in Kafka, or will never be (the log says so)."""

        def written(outcome: Place | Exception) -> None:
            if isinstance(outcome, Exception):
                log.error("a dead letter was refused", action="deadletter", origin=letter.origin, error=str(outcome))
            then()

        entry = Entry(encode(letter), written, letter.origin.encode())
        self._outbox.post(Lane(self._topics.deadletter, WHOLE), entry)

    async def status(self, status: SiteStatus) -> None:
        """Write what the dispatcher says of its site; wait until Kafka has it."""
        await self._outbox.put(self._topics.sites, encode(status), self._site.encode())

    async def drained(self, timeout: float) -> bool:
        """Wait until all that was queued is in Kafka, at most `timeout` s, and tell of it; return whether it is."""
        is_there = await self._outbox.flush(timeout)
        self._tell()  # now: what is told after the last commit would not be committed
        return is_there

    def _lane(self, group: str) -> Lane:
        return results_lane(self._topics.results, site=self._site, group=group)

    def _post(self, lane: Lane, entry: Entry, id: str = "") -> None:
        try:
            self._outbox.post(lane, entry)
        except PayloadTooLarge as error:
            log.error("what is said of a task is lost: no record holds it", action="publish", error=str(error))
            self._settle(id)

    def _answered(self, result: Result, outcome: Place | Exception) -> None:
        if isinstance(outcome, Place):
            self._settle(result.id)
            return
        log.warning("a result was refused", action="publish", task=result.id[:200], error=str(outcome))
        size = len(encode(result))
        if result.payload or result.failure is None or result.failure.type != PayloadTooLarge.__name__:
            self.result(too_large(result, size))
        else:
            self._settle(result.id)

    def _settle(self, id: str) -> None:
        """Tell, together with others of the same record, that a result is in Kafka."""
        if not id:
            return
        if not self._stored:
            asyncio.get_running_loop().call_soon(self._tell)
        self._stored.append(id)

    def _tell(self) -> None:
        ids, self._stored = tuple(self._stored), []
        if ids:
            self._on_stored(ids)


def fitted(result: Result, lane: Lane) -> Entry:
    """Return a result as an entry that a record of its lane can hold; its failure, if it is too large."""
    entry = result_entry(result)
    try:
        check(lane, entry)
    except PayloadTooLarge:
        return result_entry(too_large(result, entry.size))
    return entry


def too_large(result: Result, size: int) -> Result:
    """Return the failure in place of a result that does not fit into a record with all that belongs to it."""
    message = f"the result and what belongs to it are {size:,} bytes, a record holds {ROOM:,}: write to a file instead"
    return msgspec.structs.replace(
        result,
        status="failed",
        payload=b"",
        stdout=result.stdout[-KEPT_STDOUT:],
        preview="",
        bad_items=(),
        failure=failure(PayloadTooLarge, message),
    )
