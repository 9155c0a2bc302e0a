"""The EPICS adapter against a real IOC in its own process, events in a real Kafka."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reading import EventReader, reading
from tests.source_process import SourceProcess, sources_running
from upon.embedded.ports import free_port
from upon.topics import Topics


class Ioc:
    """An IOC that can be stopped and started again on its port."""

    def __init__(self) -> None:
        port = str(free_port())
        own = {"ADDR_LIST": "127.0.0.1", "AUTO_ADDR_LIST": "NO", "SERVER_PORT": port, "REPEATER_PORT": str(free_port())}
        self.environment = {f"EPICS_CA_{name}": value for name, value in own.items()}
        beacons = {"EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1", "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO"}
        self.environment |= beacons | {"EPICS_CAS_SERVER_PORT": port, "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1"}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("epics_ioc.py")), "T:"],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hear("ready")

    def hear(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def put(self, pv: str, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"pv": pv, **command}) + "\n")
        self.process.stdin.flush()
        self.hear("done")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def ioc() -> Iterator[Ioc]:
    one = Ioc()
    try:
        yield one
    finally:
        one.kill()


TEXT = """\
version: 1
sources:
  - name: beamline
    kind: epics
    deadband: 0.5
    connect: 5s
    pvs: [T:temperature, {name: T:shutter}, T:sample, {name: T:image, deadband: 0}]
"""


@pytest.fixture
def source(ioc: Ioc, kafka: str, topics: Topics, tmp_path: Path) -> Iterator[SourceProcess]:
    with sources_running(tmp_path / "home", kafka, topics, TEXT, **ioc.environment) as running:
        yield running


@pytest.fixture
def reader(kafka: str, topics: Topics) -> Iterator[EventReader]:
    with reading(kafka, topics) as one:
        yield one


def told(reader: EventReader, pv: str, kind: str) -> list[Any]:
    return [e.data for e in reader.poll() if e.subject == pv and e.type == f"upon.epics.{kind}"]


def values(reader: EventReader, pv: str) -> list[Any]:
    return [data["value"] for data in told(reader, pv, "value")]


def test_values_alarms_and_types(source: SourceProcess, ioc: Ioc, reader: EventReader) -> None:
    reader.until(lambda _: len(told(reader, "T:image", "value")) == 1, "the present state")
    for value in (20.4, 20.6, 20.9, 21.2):  # 20.4 and 20.9 are within 0.5 of what was announced
        ioc.put("temperature", value=value)
    ioc.put("temperature", value=30.0, severity=2, status=3)
    ioc.put("temperature", value=30.1, severity=0, status=0)
    ioc.put("shutter", value="Open")
    ioc.put("sample", value="S-17")
    ioc.put("image", value=[4, 5])
    ioc.put("image", value=[])
    ioc.put("image", value=[7])
    reader.until(lambda _: values(reader, "T:image")[-1] == 7, "the last value")
    reader.until(lambda _: len(told(reader, "T:temperature", "alarm")) == 2, "both alarms")
    assert values(reader, "T:temperature") == [20.0, 20.6, 21.2, 30.0]
    assert told(reader, "T:temperature", "value")[1]["units"] == "degC"
    assert [(a["previous"], a["severity"]) for a in told(reader, "T:temperature", "alarm")] == [
        ("NO_ALARM", "MAJOR"),
        ("MAJOR", "NO_ALARM"),
    ]
    assert values(reader, "T:shutter") == ["Closed", "Open"]
    assert values(reader, "T:sample") == ["none", "S-17"]
    assert values(reader, "T:image") == [[1, 2, 3], [4, 5], [], 7]
    assert len(told(reader, "T:temperature", "connected")) == 1
    assert len({event.id for event in reader.events}) == len(reader.events)
    source.stop()


def test_an_ioc_that_dies_and_comes_back_is_told(source: SourceProcess, ioc: Ioc, reader: EventReader) -> None:
    reader.until(lambda _: values(reader, "T:temperature") == [20.0], "the present state")
    ioc.kill()
    reader.until(lambda _: bool(told(reader, "T:temperature", "disconnected")), "that it is gone")
    ioc.start()
    ioc.put("temperature", value=40.0)
    reader.until(lambda _: 40.0 in values(reader, "T:temperature"), "its value after the restart", timeout=90)
    assert len(told(reader, "T:temperature", "connected")) == 2
    assert len(told(reader, "T:temperature", "disconnected")) == 1


def test_a_restart_of_the_source_repeats_nothing(source: SourceProcess, ioc: Ioc, reader: EventReader) -> None:
    reader.until(lambda _: values(reader, "T:image") == [[1, 2, 3]], "the present state")
    reader.until(lambda _: values(reader, "T:sample") == ["none"], "the present state")
    source.stop()
    ioc.put("sample", value="while down")
    source.start()
    reader.until(lambda _: values(reader, "T:sample") == ["none", "while down"], "what changed meanwhile")
    ioc.put("image", value=[9])
    reader.until(lambda _: values(reader, "T:image") == [[1, 2, 3], 9], "what changes now")
    assert values(reader, "T:temperature") == [20.0]
    assert len(told(reader, "T:image", "connected")) == 1


def test_a_pv_that_never_answers_is_told_as_disconnected(
    ioc: Ioc, kafka: str, topics: Topics, tmp_path: Path, reader: EventReader
) -> None:
    text = "version: 1\nsources:\n  - {name: b, kind: epics, connect: 1s, pvs: [T:sample, T:nowhere]}\n"
    with sources_running(tmp_path / "home", kafka, topics, text, **ioc.environment) as running:
        reader.until(lambda _: bool(told(reader, "T:nowhere", "disconnected")), "the event")
        assert values(reader, "T:sample") == ["none"]
        assert running.logged("wait")[0]["pvs"] == ["T:nowhere"]
        running.stop()


def test_no_repeater_and_no_other_process_is_left(source: SourceProcess, ioc: Ioc, reader: EventReader) -> None:
    reader.until(lambda _: values(reader, "T:sample") == ["none"], "the present state")
    children = Path(f"/proc/{source.process.pid}/task/{source.process.pid}/children").read_text().split()
    assert children == []
