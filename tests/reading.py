"""Reading what a test published: the events that are in a deployment's events topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kafka import KafkaConsumer, TopicPartition

from upon.events import Event, read_record
from upon.topics import Topics


class EventReader:
    """Everything in an events topic from its beginning, in the order of each partition.

    Attributes:
        events: what was read so far.
        records: number of events in each record read so far.
    """

    def __init__(self, kafka: str, topics: Topics) -> None:
        self.events: list[Event] = []
        self.records: list[int] = []
        self._kafka, self._topic = kafka, topics.events
        self._positions: dict[TopicPartition, int] = {}
        self._connect()

    def _connect(self) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=self._kafka, enable_auto_commit=False, group_id=None, fetch_max_wait_ms=50
        )
        deadline = time.monotonic() + 30
        while not (partitions := self._consumer.partitions_for_topic(self._topic)):
            assert time.monotonic() < deadline, f"no topic {self._topic}"
        assigned = [TopicPartition(self._topic, number) for number in partitions]
        self._consumer.assign(assigned)
        for partition in assigned:
            self._consumer.seek(partition, self._positions.get(partition, 0))
        self._heard = time.monotonic()

    def poll(self, timeout: float = 0.2) -> list[Event]:
        """Read what came; return all events so far."""
        for partition, records in self._consumer.poll(timeout_ms=int(timeout * 1000)).items():
            self._heard = time.monotonic()
            for record in records:
                self._positions[partition] = record.offset + 1
                found = list(read_record(record.value, record.headers))
                self.records.append(len(found))
                for event in found:
                    assert isinstance(event, Event), event
                    self.events.append(event)
        if time.monotonic() - self._heard > 5:  # a consumer was seen to stall over metadata of a new topic
            self.close()
            self._connect()
        return self.events

    def until(self, condition: Callable[[list[Event]], bool], what: str, timeout: float = 30.0) -> list[Event]:
        """Read until `condition` holds of all events so far; fail after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not condition(self.poll()):
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}; there are {self.events}"
        return self.events

    def subjects(self) -> list[str]:
        return [event.subject or "" for event in self.events]

    def close(self) -> None:
        self._consumer.close(autocommit=False)


@contextmanager
def reading(kafka: str, topics: Topics) -> Iterator[EventReader]:
    reader = EventReader(kafka, topics)
    try:
        yield reader
    finally:
        reader.close()
