"""One dispatcher and up to 131,072 workers: throughput, CPU and memory by the number of managers.

    python -m benchmarks.scaling [TASKS_A_WORKER]

As the funcX paper measures its agent (fig. 6: weak scaling, 10 no-ops a worker; 1,325 tasks/s): a real dispatcher, a
real Kafka and real CurveZMQ connections; the managers are simulated, 64 workers each, and answer at once. What is to be
done is in Kafka before and the site is closed; the clock runs from when it is opened until the last result is stored.
Strong scaling beside it: 100,000 tasks whatever the number of workers. Everything shares the machine's cores.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from benchmarks.system import cpu_of
from upon.config import Settings
from upon.embedded import ports
from upon.embedded.broker.broker import Broker
from upon.kafka.admin import ensure_topics
from upon.kafka.clients import async_producer
from upon.messages import Drain, FunctionCode, Invocation, InvocationBatch, encode, registry_key

SLOTS = 64
MANAGERS = (1, 16, 256, 2048)
STRONG = 100_000
LEAST = 20_000
"""Tasks at least: fewer are over before anything can be said."""
RECORD = 500
CODE = FunctionCode(hash="c0", body=b"", python="3.11")
console = Console(highlight=False, width=140)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one run came to."""

    managers: int
    tasks: int
    seconds: float
    cpu: float  # the dispatcher's, s
    memory: int  # the dispatcher's at its end, bytes
    joined: float  # s until every manager was known

    def row(self) -> tuple[str, ...]:
        rate = self.tasks / self.seconds
        return (
            f"{self.managers * SLOTS:,}", f"{self.managers:,}", f"{self.tasks:,}", f"{rate:,.0f}",
            f"{self.cpu / self.tasks * 1e6:.0f}", f"{self.memory / 2**20:,.0f}", f"{self.joined:.1f}",
        )  # fmt: skip


@contextmanager
def process(*words: str, given: dict[str, str], output: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A Python process, with this environment beside ours, that is stopped at the end."""
    made = subprocess.Popen(
        [sys.executable, "-m", *words], env=os.environ | given, stdout=output, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield made
    finally:
        made.kill()
        made.wait()


async def fill(settings: Settings, tasks: int) -> None:
    """Put so many no-ops into the site's topic."""
    topics = settings.topics
    specs = [*topics.shared(settings.partitions), *topics.of_site(settings.site, settings.partitions)]
    await ensure_topics(settings.kafka, specs)
    async with async_producer(settings.kafka, "scaling") as producer:
        await producer.send_and_wait(topics.control(settings.site), encode(Drain()))
        await producer.send_and_wait(topics.registry, encode(CODE), key=registry_key(CODE))
        sent = []
        for begin in range(0, tasks, RECORD):
            some = tuple(
                Invocation(id=str(uuid.uuid4()), code="c0", function="noop", payload=b"m\x92\x90\x80")
                for _ in range(min(RECORD, tasks - begin))
            )
            batch = InvocationBatch(site=settings.site, group="scaling", submitted=time.time_ns(), invocations=some)
            sent.append(await producer.send(topics.invocations(settings.site), encode(batch)))
        await asyncio.gather(*sent)


async def begin(settings: Settings) -> float:
    """Let the site start; return when."""
    async with async_producer(settings.kafka, "scaling") as producer:
        began = time.perf_counter()
        await producer.send_and_wait(settings.topics.control(settings.site), encode(Drain(on=False)))
        return began


def run(kafka: str, folder: Path, managers: int, tasks: int) -> Figure:
    """Have so many managers do so many tasks."""
    name = f"{managers}x{tasks}"
    settings = Settings(home=folder / name, kafka=kafka, prefix=f"scaling-{name}", site="local")
    address = f"tcp://{ports.HOST}:{ports.free_port()}"
    asyncio.run(fill(settings, tasks))
    known = {"UPON_KAFKA": kafka, "UPON_PREFIX": settings.prefix, "UPON_DISPATCHER": address, "UPON_LOG_LEVEL": "error"}
    with process("upon", "part", "dispatcher", "--home", str(settings.home), given=known) as dispatcher:
        here = psutil.Process(dispatcher.pid)
        while not (settings.home / "endpoint/local/curve/dispatcher.key").exists():
            time.sleep(0.01)
        called = time.perf_counter()
        simulated = ("benchmarks.simulated", str(settings.home), "local", address, str(managers), str(SLOTS))
        with process(*simulated, given=known, output=subprocess.PIPE) as them:
            assert them.stdout is not None
            began = joined = spent = 0.0
            for line in them.stdout:
                if line.strip() == "ready":
                    joined = time.perf_counter() - called
                    began, spent = asyncio.run(begin(settings)), cpu_of(here)
                elif int(line) >= tasks:
                    break
            else:
                raise RuntimeError("the managers have ended before the work was done")
            took = time.perf_counter() - began
            figure = Figure(managers, tasks, took, cpu_of(here) - spent, here.memory_info().rss, joined)
        dispatcher.send_signal(signal.SIGTERM)
        dispatcher.wait(30)
    return figure


def table(title: str, figures: list[Figure]) -> Table:
    """Return figures as a table."""
    shown = Table("workers", "managers", "tasks", "tasks/s", "dispatcher µs", "MiB", "joined s", box=None, title=title)
    for column in shown.columns:
        column.justify = "right"
    for figure in figures:
        shown.add_row(*figure.row())
    return shown


def main() -> None:
    """Measure and print."""
    each = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    console.print(describe())
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder) / "kafka")
        broker.start()
        try:
            broker.wait_ready(60)
            weak = [run(broker.address, Path(folder), one, max(LEAST, one * SLOTS * each)) for one in MANAGERS]
            console.print(table(f"weak scaling: {each} no-ops a worker", weak))
            strong = [run(broker.address, Path(folder), one, STRONG) for one in MANAGERS]
            console.print(table(f"strong scaling: {STRONG:,} no-ops", strong))
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
