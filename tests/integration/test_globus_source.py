"""The Globus source: the real SDK against a local server that speaks Globus's routes, events in a real Kafka."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.reading import EventReader, reading
from tests.source_process import SourceProcess, sources_running
from tests.systems import wait_for
from upon.topics import Topics

TEXT = """\
version: 1
sources:
  - {name: transfers, kind: globus, client_id: 2bba4a5c-0000-4000-8000-000000000000, poll: 200ms, files: 3}
"""


class GlobusServer:
    """The local server, in its own process."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}/"

    def call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def put(self, *tasks: dict[str, Any]) -> None:
        self.call("test/tasks", list(tasks))

    def asked(self) -> list[str]:
        return list(self.call("test/requests")["requests"])

    def wait_asked_again(self, times: int = 2) -> None:
        """Wait until the source has asked so many times more."""

        def count() -> int:
            return sum("task_list" in request for request in self.asked())

        end = count() + times
        wait_for(lambda: count() >= end, "the source asks", timeout=30)


@pytest.fixture
def globus() -> Iterator[GlobusServer]:
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("globus_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield GlobusServer(int(server.stdout.readline()))
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


@pytest.fixture
def source(globus: GlobusServer, kafka: str, topics: Topics, tmp_path: Path) -> Iterator[SourceProcess]:
    globus.put(ended("before", age=3600))
    environment = {
        "GLOBUS_SDK_SERVICE_URL_TRANSFER": globus.address,
        "GLOBUS_SDK_SERVICE_URL_AUTH": globus.address,
        "UPON_GLOBUS_CLIENT_SECRET": "secret",
    }
    with sources_running(tmp_path / "home", kafka, topics, TEXT, **environment) as running:
        yield running


@pytest.fixture
def reader(kafka: str, topics: Topics) -> Iterator[EventReader]:
    with reading(kafka, topics) as one:
        yield one


def ended(task_id: str, status: str = "SUCCEEDED", age: float = -1.0, **more: Any) -> dict[str, Any]:
    """A task that ended `age` seconds ago; by default a second ahead, as clocks differ."""
    completed = (datetime.now(UTC) - timedelta(seconds=age)).isoformat(timespec="seconds")
    return {"task_id": task_id, "status": status, "completion_time": completed, "label": f"label of {task_id}", **more}


def test_a_task_is_announced_by_its_status_once_it_ended(
    source: SourceProcess, globus: GlobusServer, reader: EventReader
) -> None:
    globus.put({"task_id": "t1", "status": "ACTIVE"}, {"task_id": "t2", "status": "ACTIVE"})
    globus.wait_asked_again()
    globus.put(ended("t1", files_transferred=2, bytes_transferred=10), ended("t2", "FAILED", nice_status="CANCELED"))
    globus.put(ended("gone", type="DELETE"))
    reader.until(lambda events: len(events) == 2, "both tasks")
    globus.wait_asked_again(5)
    reader.poll()
    found = {event.subject: event for event in reader.events}
    assert len(reader.events) == 2
    assert {event.type for event in reader.events} == {
        "upon.globus.transfer.succeeded",
        "upon.globus.transfer.failed",
    }
    assert found["t1"].data["label"] == "label of t1"
    assert found["t1"].data["transferred"] == [
        {"source": "/from/0", "destination": "/to/0"},
        {"source": "/from/1", "destination": "/to/1"},
    ]
    assert found["t1"].data["transferred_more"] is False
    assert found["t2"].data["nice_status"] == "CANCELED"
    assert not any("event_list" in request for request in globus.asked())


def test_many_tasks_come_in_pages_and_many_files_are_cut(
    source: SourceProcess, globus: GlobusServer, reader: EventReader
) -> None:
    globus.put(*(ended(f"t{n:03}", files_transferred=5 if n == 0 else 0) for n in range(230)))
    reader.until(lambda events: len(events) >= 230, "230 tasks")
    globus.wait_asked_again()
    reader.poll()
    assert sorted(reader.subjects()) == [f"t{n:03}" for n in range(230)]
    first = next(event for event in reader.events if event.subject == "t000")
    assert len(first.data["transferred"]) == 3
    assert first.data["transferred_more"] is True


def test_faults_of_the_service_delay_and_lose_nothing(
    source: SourceProcess, globus: GlobusServer, reader: EventReader
) -> None:
    globus.call("test/faults", {"count": 3, "status": 503})  # the SDK gets over these
    globus.put(ended("t1"))
    reader.until(lambda events: len(events) == 1, "the first")
    globus.call("test/faults", {"count": 12, "status": 503})  # these make the source fail and start again
    globus.put(ended("t2"))
    reader.until(lambda events: len(events) == 2, "the second", timeout=60)
    assert reader.subjects() == ["t1", "t2"]
    wait_for(lambda: source.logged("recover"), "that it is said to be well again")
    assert len(source.logged("fail")) == 1
    assert "503" in source.logged("fail")[0]["event"]
    assert len(source.logged("recover")) == 1


def test_a_kill_loses_nothing_and_repeats_nothing(
    source: SourceProcess, globus: GlobusServer, reader: EventReader
) -> None:
    globus.put(ended("t1", age=-60), ended("t2", "FAILED"))
    reader.until(lambda events: len(events) == 2, "both tasks")
    globus.wait_asked_again()
    source.kill()
    globus.put(ended("late", age=-30), ended("t3", age=-70))  # one is listed late, within the overlap
    source.start()
    reader.until(lambda events: {"late", "t3"} <= set(reader.subjects()), "what ended while it was down")
    globus.wait_asked_again()
    reader.poll()
    ids = {(event.subject, event.id) for event in reader.events}
    assert len({subject for subject, _ in ids}) == len(ids), "one task, two ids"
    assert {subject for subject, _ in ids} == {"t1", "t2", "t3", "late"}


def test_a_missing_secret_says_what_to_do(globus: GlobusServer, kafka: str, topics: Topics, tmp_path: Path) -> None:
    environment = {"GLOBUS_SDK_SERVICE_URL_AUTH": globus.address, "UPON_GLOBUS_CLIENT_SECRET": ""}
    with sources_running(tmp_path / "home", kafka, topics, TEXT, **environment) as running:
        running.stop()
        (failure,) = running.logged("fail")
        assert "UPON_GLOBUS_CLIENT_SECRET" in failure["event"]
        assert failure["level"] == "error"
