"""Events → Kafka from threads: the shell of `upon.kafka.batches` on kafka-python.

    publish ──▶ lanes (`upon.kafka.batches`), one per partition ──▶ kafka-python producer ──▶ then()
                before the partitions are known: a lane that nothing leaves        └ refused for good: dead letter ┘

Guarantees:
  - `then` of an event is called once Kafka has it on all in-sync replicas (acks=all), and only then.
  - Events of one key reach Kafka in the order of `publish`, also when the broker goes away and comes back.
  - An event that comes while none of its partition is under way leaves at once, in the caller's thread; under load
    events share records.
  - Memory is bounded: `publish` blocks while `MAX_EVENTS` or `MAX_BYTES` are accepted and not yet safe.
  - While the broker is away everything is kept and tried again; the log says so once, and once when it is back.
  - What the broker refuses for good (a record over its own limit) goes to the dead letters with the reason, and
    counts as safe once it is there: it holds up nothing that follows.
  - An unexpected end of its thread stops it: `publish` raises `Stopped`, `check` raises the reason.

Why not `upon.kafka.outbox`, which does the same in an event loop: it stands on aiokafka, whose compiled parts need a
wheel or a compiler for each machine. kafka-python is pure Python: sources install on any instrument PC. What is to be
decided (lanes, order, sizes, splitting) is in `batches` for both.

An event may reach Kafka twice (a broker that dies between writing and answering); its id is the same.
Not here: a disk spool. A process that is killed loses what is not safe yet; the source publishes it again (`source`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from upon.deadletters import letter, unwritten
from upon.errors import PayloadTooLarge
from upon.events import Event, write_record
from upon.kafka import settings
from upon.kafka.batches import Entry, Lane, Lanes, Place, Record, partition_of
from upon.kafka.clients import sync_producer
from upon.kafka.forms import EVENTS, WHOLE
from upon.logs import get_logger
from upon.messages import encode
from upon.topics import Topics
from upon.triggers.source import Stopped, Then

if TYPE_CHECKING:
    from kafka import KafkaProducer

MAX_EVENTS = 20_000
MAX_BYTES = 64 * 1024 * 1024
"""How much may be accepted and not yet safe; more blocks `publish`."""
AWAY_AFTER = 5.0
"""Seconds without an answer after which the log says that Kafka is away."""
STALLED = 20.0
"""Seconds without an answer after which the client is replaced: a new one finds a broker that is back sooner."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds between attempts while it is."""
DEAD_LETTER_BYTES = 64 * 1024
"""How much of a refused event its dead letter keeps: the broker would refuse the whole again."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a record: its place, or why it has none."""

    record: Record
    producer: KafkaProducer
    place: Place | None
    error: BaseException | None = None


class Publisher:
    """Publishes events to a deployment's events topic from any number of threads.

    It connects in a thread of its own and may be used at once; `close` it at the end.

    Args:
        kafka: bootstrap address.
        topics: of the deployment; its events topic must exist, or come to exist.
        client_id: for the broker's logs.

    Attributes:
        connected: set once Kafka has answered, or the publisher has failed.
    """

    def __init__(self, kafka: str, topics: Topics, client_id: str = "upon-sources") -> None:
        # Its warnings repeat with every attempt to connect; what matters of them is said here, once.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        self._kafka, self._topics, self._client_id = kafka, topics, client_id
        self._lanes = Lanes()
        self._early = Lane(topics.events, replace(EVENTS, window=0))  # nothing leaves it: partitions are not known yet
        self._letters = Lane(topics.deadletter, WHOLE)
        self._partitions: list[Lane] = []
        self._turn = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._outcomes: queue.SimpleQueue[_Outcome | None] = queue.SimpleQueue()
        self._producer: KafkaProducer | None = None
        self._closed = threading.Event()
        self._abandoned = threading.Event()
        self._failure: BaseException | None = None
        self.connected = threading.Event()
        self._progress = self._looked = time.monotonic()
        self._said_away = False
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def publish(self, event: Event, then: Then | None = None) -> None:
        """Accept an event; block while too many are under way.

        Args:
            event: what happened.
            then: called once the event is safe, from the publisher's thread; quick, and never publishes itself.

        Raises:
            EventError: its data is not JSON-serializable.
            PayloadTooLarge: no record can hold it.
            Stopped: the publisher is closed, or has failed (`check` says why).
        """
        key = None if event.key is None else event.key.encode()
        entry = Entry(write_record([event])[0], None if then is None else lambda _: then(), key)
        with self._changed:
            while self._lanes.count and (self._lanes.count >= MAX_EVENTS or self._lanes.bytes + entry.size > MAX_BYTES):
                if self._closed.is_set():
                    break
                self._changed.wait()
            if self._closed.is_set():
                raise Stopped("the publisher is closed")
            if self._lanes.count == 0:
                self._progress = time.monotonic()
            try:
                record, producer = self._lanes.add(self._lane_of(key), entry), self._producer
            except PayloadTooLarge as error:
                raise PayloadTooLarge(f"event {event.id} ({event.type}) does not fit: {error}") from error
        self._send(producer, (record,))

    @property
    def outstanding(self) -> int:
        """Events that are accepted and not yet safe."""
        with self._lock:
            return self._lanes.count

    def flush(self, timeout: float) -> bool:
        """Wait until everything accepted is safe, or nothing more will be; return whether it is within `timeout` s."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lanes.count or self._failure is not None, timeout)
            return not self._lanes.count

    def check(self) -> None:
        """Raise what ended the publisher's thread unexpectedly, if anything did."""
        if self._failure is not None:
            raise self._failure

    def refuse(self) -> None:
        """Accept no more; whoever waits for room gets `Stopped`. What is accepted still goes to Kafka."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()

    def close(self, timeout: float = 1.5) -> bool:
        """Accept no more, wait up to `timeout` seconds for what is under way; return whether all of it is safe."""
        self.refuse()
        safe = self.flush(timeout)
        self._abandoned.set()
        self._outcomes.put(None)
        self._thread.join(timeout=1.0)
        return safe

    # ── the publisher's own thread ────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            self._connect()
            while not self._abandoned.is_set():
                outcome = self._next_outcome()
                if outcome is not None:
                    self._take_in(outcome)
                self._look()
        except Exception as error:
            self._failure = error
            self.refuse()
            self.connected.set()
        finally:
            self._drop(self._producer)

    def _next_outcome(self) -> _Outcome | None:
        try:
            return self._outcomes.get(timeout=AWAY_AFTER)
        except queue.Empty:
            if self._lanes.count:
                self._note_silence("no answer")
                if time.monotonic() - self._progress >= STALLED:
                    self._start_over()
            return None

    def _take_in(self, outcome: _Outcome) -> None:
        record = outcome.record
        with self._lock:
            if not any(record is waiting for waiting in self._lanes.under_way()):
                return  # sent twice, over a lost connection; the first answer counted
        if outcome.place is not None:
            self._note_answer()
            self._done(record, outcome.place)
        elif outcome.producer is self._producer:  # else a client that was replaced; the new one sends it again
            error = outcome.error or RuntimeError("no reason")
            if _too_large(error):
                self._refuse(record, error)
            else:
                self._note_silence(_words(error))
            self._start_over()

    def _done(self, record: Record, outcome: Place | Exception) -> None:
        """Tell the sources that their events are safe, and send what waited for it."""
        for entry in record.entries:
            if entry.then is not None:
                try:
                    entry.then(outcome)
                except Exception:
                    log.exception("a source failed when told that its event is safe", action="acknowledge")
        with self._changed:
            following = self._lanes.done(record)
            self._changed.notify_all()
        self._send(self._producer, (following,))

    def _refuse(self, record: Record, error: BaseException) -> None:
        """The broker's limit is below ours: split the record; one event that is too large alone is a dead letter.

        What is to leave for it does so with the new client.
        """
        if len(record.entries) > 1:
            with self._lock:
                self._lanes.refused(record)
            return
        entry = record.entries[0]
        value, headers = record.encoded()
        value = value or b""
        reason = f"the broker refuses {len(value)} bytes: {_words(error)}"
        if record.lane == self._letters:
            log.error("an event is lost: not even its dead letter is accepted", action="drop", reason=reason)
        else:
            log.error("an event is too large for the broker", action="deadletter", reason=reason)
            refused = unwritten(self._topics.events, record.key, value, headers)
            about = hashlib.sha256(value).hexdigest()
            body = encode(letter(refused, "sources", reason, time.time_ns(), about=about, room=DEAD_LETTER_BYTES))
            with self._lock:
                self._lanes.add(self._letters, Entry(body, entry.then))
            entry.then = None  # the event is safe when its letter is
        self._done(record, PayloadTooLarge(reason))

    # ── sending and connecting ────────────────────────────────────────────────────────────────────────────────────

    def _lane_of(self, key: bytes | None) -> Lane:
        from kafka.partitioner.default import murmur2

        if not self._partitions:
            return self._early
        if key is not None:
            return self._partitions[partition_of(key, len(self._partitions), murmur2)]
        self._turn = (self._turn + 1) % len(self._partitions)
        return self._partitions[self._turn]

    def _send(self, producer: KafkaProducer | None, records: Iterable[Record | None]) -> None:
        """Hand records to the client; what became of them arrives in the queue. Without a client they wait."""
        for record in records:
            if record is None or producer is None:
                continue
            partition = record.lane.partition
            if partition is not None and self._partitions:  # a topic that was made anew may have fewer
                partition %= len(self._partitions)
            value, headers = record.encoded()
            try:
                future = producer.send(record.lane.topic, value, key=record.key, headers=headers, partition=partition)
            except Exception as error:  # the client raises its own errors and built-in ones alike; all mean: not sent
                self._outcomes.put(_Outcome(record, producer, None, error))
                continue
            future.add_callback(self._sent, record, producer)
            future.add_errback(self._not_sent, record, producer)

    def _sent(self, record: Record, producer: KafkaProducer, at: Any) -> None:
        self._outcomes.put(_Outcome(record, producer, Place(at.topic, at.partition, at.offset)))

    def _not_sent(self, record: Record, producer: KafkaProducer, error: BaseException) -> None:
        self._outcomes.put(_Outcome(record, producer, None, error))

    def _start_over(self) -> None:
        """Replace the client. After an error that it takes for final, such as a record that the broker finds too
        large, it fails everything else with the same error for ever; the first one to fail is the true one.
        """
        with self._lock:
            failed, self._producer = self._producer, None
        self._drop(failed)
        self._abandoned.wait(FIRST_PAUSE)
        self._connect()

    def _connect(self) -> None:
        """Connect, however long it takes, and send all that is under way."""
        pause = FIRST_PAUSE
        while not self._abandoned.is_set():
            producer = None
            try:
                producer = sync_producer(self._kafka, self._client_id)
                partitions = len(producer.partitions_for(self._topics.events))
            except Exception as error:  # as in `_send`; whatever it is, what was accepted is kept
                self._drop(producer)
                self._note_silence(_words(error))
                self._abandoned.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            with self._lock:
                self._producer = producer
                self._learn(partitions)
                under_way = list(self._lanes.under_way())
            self.connected.set()
            if not under_way:
                self._note_answer()
            self._send(producer, under_way)
            return

    def _look(self) -> None:
        """Look from time to time whether there are more partitions: the client knows."""
        if self._producer is None or time.monotonic() - self._looked < settings.LOOK_MS / 1000:
            return
        with contextlib.suppress(Exception):  # as in `_send`; a topic that is away shows when events are sent
            partitions = len(self._producer.partitions_for(self._topics.events))
            with self._lock:
                self._learn(partitions)
        self._looked = time.monotonic()

    def _learn(self, partitions: int) -> None:
        """Take in how many partitions there are. What waits stays in its lane; what came before any was known leaves
        its own.
        """
        first = not self._partitions
        self._partitions = [Lane(self._topics.events, EVENTS, partition=number) for number in range(partitions)]
        self._looked = time.monotonic()
        if first:
            early = self._lanes.give_up(self._topics.events)
            self._lanes.add_all([(self._lane_of(entry.key), entry) for entry in early])

    def _drop(self, producer: KafkaProducer | None) -> None:
        if producer is not None:
            # It has nothing left to do; a flush that finds records still waiting is no news.
            with contextlib.suppress(Exception):
                producer.close(timeout=0)

    # ── what the log says ─────────────────────────────────────────────────────────────────────────────────────────

    def _note_silence(self, reason: str) -> None:
        if not self._said_away and time.monotonic() - self._progress >= AWAY_AFTER:
            self._said_away = True
            log.warning(
                "Kafka does not answer; events are kept and sent when it does",
                action="wait",
                kafka=self._kafka,
                topic=self._topics.events,
                reason=reason,
            )

    def _note_answer(self) -> None:
        now = time.monotonic()
        if self._said_away:
            log.info("Kafka answers again", action="resume", kafka=self._kafka, away=round(now - self._progress, 1))
        self._progress, self._said_away = now, False


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _too_large(error: BaseException) -> bool:
    from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

    return isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError)
