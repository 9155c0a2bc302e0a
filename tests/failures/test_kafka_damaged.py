"""A log of Kafka that is damaged: the user reads which one it is, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

from tests.systems import System, running, wait_for
from upon import Executor
from upon.kafka.clients import async_producer
from upon.sdk.client import Client
from upon.topics import Topics


def one() -> int:
    return 1


def logs(system: System, topic: str) -> list[Path]:
    return sorted((system.home / "kafka/data").glob(f"{topic}-*/*.log"))


async def publish(kafka: str) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "damage"}
    async with async_producer(kafka, "test") as producer:
        await producer.send_and_wait(Topics().events, json.dumps(event).encode())


def test_damage_is_named_for_as_long_as_it_stands_and_a_log_cut_off_loses_its_end_and_nothing_else(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as system:
        with Client(home=system.home) as client:
            for number in range(5):
                client.register(one, f"one-{number}")
            client.apply_rules("rules: [{name: d, upon: {type: [damage]}, run: {function: one-0}}]")
        log = _damage_a_result(system)
        _is_named_in_status(system, log)

        system.run("down")
        log.parent.rename(tmp_path / log.parent.name)
        (registry,) = logs(system, "upon.registry")
        with registry.open("r+b") as file:  # Kafka alone would take it for empty, and write where nobody can read
            file.truncate(registry.stat().st_size - 10)
        system.run("up", "--detach")
        system.wait_up()
        told = "the end of upon.registry-0 is lost"
        assert told in (system.home / "logs/up.log").read_text()
        assert told in system.run("status").stdout
        with Client(home=system.home) as client:
            assert {f"one-{number}" for number in range(5)} <= {function.name for function in client.functions()}
            client.register(one, "one-more")
        with Executor(home=system.home) as executor:
            assert executor.submit(pow, 2, 3).result(timeout=60) == 8

        system.run("down")
        system.run("up", "--detach")
        system.wait_up()
        assert told not in system.run("status").stdout, "it was lost once"
        with Client(home=system.home) as client:
            assert "one-more" in {function.name for function in client.functions()}


def _damage_a_result(system: System) -> Path:
    """Have an event's result in Kafka, and damage it before the service reads it; return the log that it is in."""
    service = system.pids("service")[0]
    os.kill(service, signal.SIGSTOP)
    before = {log: log.stat().st_size for log in logs(system, "upon.results")}
    asyncio.run(publish(json.loads((system.home / "profile.json").read_text())["kafka"]))
    log = wait_for(
        lambda: next((log for log, size in before.items() if log.stat().st_size > size), None), "a result in Kafka"
    )
    with log.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\xff\x00\xff\x00\xff")
    os.kill(service, signal.SIGKILL)
    return log


def _is_named_in_status(system: System, log: Path) -> None:
    """The service would start well, come to the record, end, and start again: up whenever somebody looks."""
    partition = log.parent.name
    status = wait_for(lambda: (s := system.status())["parts"]["service"]["state"] == "failed" and s, "it is seen")
    trouble = next(line for line in status["troubles"] if line.startswith("service is failed"))
    topic, _, number = partition.rpartition("-")
    assert f"topic {topic}, partition {number}: the record at offset" in trouble
    assert f"stop Kafka (`upon down`), move its folder {partition} (of a home: in kafka/data) away" in trouble
    restarts = status["parts"]["service"]["restarts"]

    def again() -> bool:
        part = system.status()["parts"]["service"]
        assert part["state"] == "failed", "also while it runs, until it comes to the record once more"
        return bool(part["restarts"] > restarts)

    wait_for(again, "it was tried again")
    said = system.run("status", check=False)
    assert said.returncode == 1
    assert trouble in said.stdout.replace("\n", " ")
    assert trouble.removeprefix("service is failed: ") in (system.home / "logs/service.log").read_text()
