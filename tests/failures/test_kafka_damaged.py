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


def test_a_record_that_cannot_be_read_is_named_in_status_for_as_long_as_it_stands(tmp_path: Path) -> None:
    """The service would start well, come to the record, end, and start again: up whenever somebody looks."""
    with running(tmp_path) as system:
        with Client(home=system.home) as client:
            client.register(one, "one")
            client.apply_rules("rules: [{name: d, upon: {type: [damage]}, run: {function: one}}]")
        service = system.pids("service")[0]
        os.kill(service, signal.SIGSTOP)  # so that it has yet to read the result
        before = {log: log.stat().st_size for log in logs(system, "upon.results")}
        asyncio.run(publish(json.loads((system.home / "profile.json").read_text())["kafka"]))
        log = wait_for(
            lambda: next((log for log, size in before.items() if log.stat().st_size > size), None), "a result in Kafka"
        )
        with log.open("r+b") as file:
            file.seek(-5, os.SEEK_END)
            file.write(b"\xff\x00\xff\x00\xff")
        os.kill(service, signal.SIGKILL)
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

        system.run("down")
        log.parent.rename(tmp_path / partition)
        system.run("up", "--detach")
        system.wait_up()
        with Executor(home=system.home) as executor:
            assert executor.submit(pow, 2, 3).result(timeout=60) == 8


def test_logs_that_were_cut_off_lose_their_end_and_nothing_else(tmp_path: Path) -> None:
    """Kafka alone would take such a log for empty, and write where nobody can read."""
    with running(tmp_path) as system:
        with Client(home=system.home) as client:
            for number in range(5):
                client.register(one, f"one-{number}")
        system.run("down")
        (log,) = logs(system, "upon.registry")
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size - 10)
        system.run("up", "--detach")
        system.wait_up()
        told = "the end of upon.registry-0 is lost"
        assert told in (system.home / "logs/up.log").read_text()
        assert told in system.run("status").stdout
        with Client(home=system.home) as client:
            known = {function.name for function in client.functions()}
            assert {f"one-{number}" for number in range(4)} <= known
            client.register(one, "one-more")
        with Executor(home=system.home) as executor:
            assert executor.submit(pow, 2, 3).result(timeout=60) == 8
        system.run("down")
        system.run("up", "--detach")
        system.wait_up()
        assert told not in system.run("status").stdout, "it was lost once"
        with Client(home=system.home) as client:
            assert "one-more" in {function.name for function in client.functions()}
