"""Kafka is killed, and comes back, while files are dropped: the sources keep everything, in order, and say so once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reading import reading
from tests.source_process import sources_running, sources_without_kafka
from tests.systems import wait_for
from upon.embedded.broker.broker import Broker
from upon.kafka.admin import ensure_topics
from upon.topics import Topics


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path / "kafka")
    one.start()
    try:
        one.wait_ready(60)
        yield one
    finally:
        one.stop()


def kill(broker: Broker) -> None:
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    wait_for(lambda: broker.pid is None, "the broker's end")


def test_a_broker_that_is_killed_and_comes_back(broker: Broker, tmp_path: Path) -> None:
    topics = Topics("away")
    asyncio.run(ensure_topics(broker.address, topics.shared()))
    folder = tmp_path / "in"
    folder.mkdir()
    text = "version: 1\nsources:\n  - {name: in, kind: filesystem, path: ../in, settle: 500ms}\n"
    log = folder / "log"
    with sources_running(tmp_path / "home", broker.address, topics, text) as source:
        for n in range(200):
            if n == 60:
                kill(broker)
            (folder / f"{n:03}").write_text(str(n))
            with log.open("a") as file:
                file.write("x")
            if n == 120:
                wait_for(lambda: source.logged("wait"), "that the log says so")
                broker.start()
                broker.wait_ready(60)
        wait_for(lambda: source.logged("resume"), "that Kafka answers again")
        with reading(broker.address, topics) as reader:
            expected = {str(folder / f"{n:03}") for n in range(200)} | {str(log)}
            reader.until(lambda _: set(reader.subjects()) >= expected, "all files", timeout=60)
            reader.until(lambda _: 200 in [e.data["size"] for e in reader.events if e.subject == str(log)], "the log")
            sizes = [e.data["size"] for e in reader.events if e.subject == str(log)]
            assert list(dict.fromkeys(sizes)) == sorted(set(sizes)), "versions of one file out of order"
            assert len({e.id for e in reader.events}) == len({(e.subject, e.data["version"]) for e in reader.events})
        assert len(source.logged("wait")) == 1
        assert len(source.logged("resume")) == 1
        source.stop()


def test_sources_that_start_before_kafka_wait_for_it_and_stop_without_it(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka")
    broker.prepare()
    topics = Topics("later")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "early").write_text("1")
    text = "version: 1\nsources:\n  - {name: in, kind: filesystem, path: ../in, settle: 500ms}\n"
    with sources_without_kafka(tmp_path / "home", broker.address, topics, text) as source:
        source.stop()
        source.start_without_kafka()
        broker.start()
        try:
            broker.wait_ready(60)
            asyncio.run(ensure_topics(broker.address, topics.shared()))
            with reading(broker.address, topics) as reader:
                reader.until(lambda _: reader.subjects() == [str(folder / "early")], "the early file", timeout=60)
        finally:
            broker.stop()
