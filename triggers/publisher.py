"""Events → Kafka: in order, acknowledged, gathered into batch records only under load.

Guarantees:
  - `then` of an event is called once Kafka has it on all in-sync replicas (acks=all), and only then.
  - Events of one key reach Kafka in the order of `publish`, also when the broker goes away and comes back.
  - An event that comes while none of its partition is under way leaves at once, in the caller's thread.
  - Memory is bounded: `publish` blocks while `MAX_EVENTS` or `MAX_BYTES` are accepted and not yet safe.
  - While the broker is away everything is kept and tried again; the log says so once, and once when it is back.
  - What the broker refuses for good (a record over its own limit) goes to the dead letters with the reason, and
    counts as safe: it must not hold up what follows.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from upon.deadletters import letter, unwritten
from upon.errors import PayloadTooLarge
from upon.events import Event, write_record
from upon.kafka.clients import sync_producer
from upon.logs import get_logger
from upon.messages import MAX_PAYLOAD, encode
from upon.topics import Topics
from upon.triggers.lanes import Entry, Lanes, Record
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
    record: Record
    producer: KafkaProducer
    error: BaseException | None = None


class Publisher:
    """Publishes events to a deployment's events topic from any number of threads.

    It connects in a thread of its own and may be used at once; `close` it at the end.

    Args:
        kafka: bootstrap address.
        topics: of the deployment; its events topic must exist, or come to exist.
        client_id: for the broker's logs.
    """

    def __init__(self, kafka: str, topics: Topics, client_id: str = "upon-sources") -> None:
        from kafka.partitioner.default import murmur2

        # Its warnings repeat with every attempt to connect; what matters of them is said here, once.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        self._kafka, self._topics, self._client_id = kafka, topics, client_id
        self._lanes = Lanes(lambda key, partitions: (murmur2(key) & 0x7FFFFFFF) % partitions)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._outcomes: queue.SimpleQueue[_Outcome | None] = queue.SimpleQueue()
        self._producer: KafkaProducer | None = None
        self._letters: dict[int, bytes] = {}  # by identity of a record under way: its dead letter goes in its stead
        self._closed = threading.Event()
        self._abandoned = threading.Event()
        self.connected = threading.Event()
        self._progress = time.monotonic()
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
            PayloadTooLarge: it is over the limit of one record.
            Stopped: the publisher is closed.
        """
        body, _ = write_record([event])
        if len(body) > MAX_PAYLOAD:
            raise PayloadTooLarge(
                f"event {event.id} ({event.type}) has {len(body)} bytes, more than {MAX_PAYLOAD}: "
                "put the data where it belongs and its place into the event"
            )
        entry = Entry(None if event.key is None else event.key.encode(), body, then)
        with self._changed:
            while self._lanes.count and (self._lanes.count >= MAX_EVENTS or self._lanes.bytes + len(body) > MAX_BYTES):
                if self._closed.is_set():
                    break
                self._changed.wait()
            if self._closed.is_set():
                raise Stopped("the publisher is closed")
            if self._lanes.count == 0:
                self._progress = time.monotonic()
            record, producer = self._lanes.add(entry), self._producer
        if record is not None:
            self._send(producer, record)

    @property
    def outstanding(self) -> int:
        """Events that are accepted and not yet safe."""
        with self._lock:
            return self._lanes.count

    def flush(self, timeout: float) -> bool:
        """Wait until everything accepted is safe; return whether it is, within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._lanes.count == 0, timeout)

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
        except Exception:
            log.exception("the publisher stopped by an unexpected error", action="publish")
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
        record, error = outcome.record, outcome.error
        with self._lock:
            if not any(record is waiting for waiting in self._lanes.under_way()):
                return  # sent twice, over a lost connection; the first answer counted
        if error is None:
            self._note_answer()
            self._forget(record)
        elif outcome.producer is not self._producer:
            return  # of a client that was replaced; the new one sends it again
        else:
            if _too_large(error):
                self._refuse(record, error)
            else:
                self._note_silence(_words(error))
            self._start_over()

    def _forget(self, record: Record) -> None:
        """Tell the sources that their events are safe, and send what waited for it."""
        for entry in record.entries:
            if entry.then is not None:
                try:
                    entry.then()
                except Exception:
                    log.exception("a source failed when told that its event is safe", action="acknowledge")
        self._letters.pop(id(record), None)
        with self._changed:
            following = self._lanes.done(record)
            self._changed.notify_all()
        if following is not None:
            self._send(self._producer, following)

    def _refuse(self, record: Record, error: BaseException) -> None:
        """The broker's limit is below ours: send one by one, and put into the dead letters what is too large alone."""
        reason = f"the broker refuses {len(record.value)} bytes: {_words(error)}"
        if len(record.entries) > 1:
            with self._lock:
                self._lanes.too_large(record)
        elif id(record) in self._letters:
            log.error("an event is lost: not even its dead letter is accepted", action="drop", reason=reason)
            self._forget(record)
        else:
            log.error("an event is too large for the broker", action="deadletter", reason=reason)
            refused = unwritten(self._topics.events, record.key, record.value, record.headers)
            about = hashlib.sha256(record.value).hexdigest()
            self._letters[id(record)] = encode(
                letter(refused, "sources", reason, time.time_ns(), about=about, room=DEAD_LETTER_BYTES)
            )

    # ── sending and connecting ────────────────────────────────────────────────────────────────────────────────────

    def _send(self, producer: KafkaProducer | None, record: Record) -> None:
        if (buried := self._letters.get(id(record))) is not None:
            self._produce(producer, record, self._topics.deadletter, buried)
            return
        self._produce(
            producer,
            record,
            self._topics.events,
            record.value,
            key=record.key,
            headers=record.headers,
            partition=record.lane,
        )

    def _produce(self, producer: KafkaProducer | None, record: Record, topic: str, value: bytes, **more: Any) -> None:
        """Hand bytes to the client; what became of `record` arrives in the queue. Without a client it waits."""
        if producer is None:
            return
        try:
            future = producer.send(topic, value, **more)
        except Exception as error:  # the client raises its own errors and built-in ones alike; all mean: not sent
            self._outcomes.put(_Outcome(record, producer, error))
            return
        future.add_callback(lambda _: self._outcomes.put(_Outcome(record, producer)))
        future.add_errback(lambda error: self._outcomes.put(_Outcome(record, producer, error)))

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
                partitions = producer.partitions_for(self._topics.events)
            except Exception as error:  # as in `_produce`; whatever it is, what was accepted is kept
                self._drop(producer)
                self._note_silence(_words(error))
                self._abandoned.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            with self._lock:
                self._producer = producer
                self._lanes.learn(len(partitions))
                under_way = list(self._lanes.under_way())
            self.connected.set()
            if not under_way:
                self._note_answer()
            for record in under_way:
                self._send(producer, record)
            return

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
