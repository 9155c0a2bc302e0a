"""What the dispatcher's tests stand on: the part in this process or its own, a hand-driven manager, all results."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import zmq

from upon.config import Settings
from upon.dispatcher import protocol, wire
from upon.dispatcher.keys import curve_folder, dispatcher_public, manager_keys
from upon.dispatcher.process import main
from upon.kafka.clients import async_producer
from upon.kafka.follow import follow
from upon.messages import (
    Cancel,
    FunctionCode,
    Invocation,
    InvocationBatch,
    Message,
    Result,
    ResultBatch,
    SiteStatus,
    decode,
    encode,
    registry_key,
)
from upon.part import Part

Kind = TypeVar("Kind")
PATIENCE = 30.0
CODE = FunctionCode(hash="c0", body=b"body", python="3.11")


class ReportingPart(Part):
    """A part that tells this process where it listens."""

    def __init__(self) -> None:
        super().__init__("dispatcher")
        self.info: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def ready(self, **info: Any) -> None:
        if not self.info.done():
            self.info.set_result(info)


@asynccontextmanager
async def dispatcher(settings: Settings) -> AsyncIterator[str]:
    """The part, in this event loop; yields where it listens, and stops it cleanly."""
    part = ReportingPart()
    running: asyncio.Future[Any] = asyncio.create_task(main(part, settings))
    await asyncio.wait([running, part.info], return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
    if running.done():
        await running
    try:
        yield part.info.result()["dispatcher"]
    finally:
        part.stopping.set()
        await asyncio.wait_for(running, PATIENCE)


def dispatcher_process(settings: Settings, address: str, first: str = "") -> subprocess.Popen[bytes]:
    """The part, as a process of its own, which does `first` (Python) first."""
    environment = {
        **os.environ,
        "UPON_KAFKA": settings.kafka,
        "UPON_PREFIX": settings.prefix,
        "UPON_SITE": settings.site,
        "UPON_DISPATCHER": address,
    }
    program = (
        "import sys; from upon.config import Settings; from upon.part import run_part; "
        "from upon.dispatcher.process import main; "
        "sys.exit(run_part('dispatcher', Settings.load(sys.argv[1]), main))"
    )
    command = [sys.executable, "-c", first + program, str(settings.home)]
    return subprocess.Popen(command, env=environment)


class HandDriven:
    """A manager without workers, told by the test what to say. The socket, the keys and the frames are real.

    Attributes:
        stored: ids that the dispatcher said are stored.
    """

    def __init__(self, settings: Settings, address: str, id: str = "m1", slots: int = 2, key: str = "manager") -> None:
        curve = curve_folder(settings.places.endpoint(settings.site))
        keys = manager_keys(curve, key)
        self.id, self.slots = id, slots
        self.stored: set[str] = set()
        self.epoch = 0  # of the dispatcher, as far as it was heard
        self._reported: protocol.Ready | None = None
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.set(zmq.CURVE_SERVERKEY, dispatcher_public(curve))
        self.socket.set(zmq.CURVE_PUBLICKEY, keys.public)
        self.socket.set(zmq.CURVE_SECRETKEY, keys.secret)
        self.socket.set(zmq.LINGER, 0)  # a test that fails ends, too
        self.socket.connect(address)

    def ready(self, **more: Any) -> None:
        self._reported = protocol.Ready(self.id, "h", 1, (2,), self.slots, "3.11", **more)
        self.say(self._reported)

    def say(self, message: protocol.FromManager) -> None:
        self.socket.send_multipart([self.id.encode(), *wire.pack(message, self.epoch)])

    def ended(self, task: protocol.Assignment, payload: bytes = b"m\x01", **more: Any) -> None:
        now = time.time_ns()
        outcome = protocol.Outcome(
            task.id,
            task.attempt,
            **{"status": "succeeded", "payload": payload, "started": now, "finished": now, **more},
        )
        self.say(protocol.Results((outcome,)))

    async def hear(self, kind: type[Kind], when: Callable[[Kind], bool] = lambda _: True) -> Kind:
        """Return the next message of this kind; heartbeats are answered, all else is passed over."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not await asyncio.to_thread(self.socket.poll, 500):
                self.say(protocol.Heartbeat(0))
                continue
            frames = self.socket.recv_multipart()
            message = wire.from_dispatcher(frames)
            if wire.epoch_of(frames) > self.epoch:
                self.epoch = wire.epoch_of(frames)
                if self._reported is not None:
                    self.say(self._reported)
            if isinstance(message, protocol.Stored):
                self.stored |= {attempt.id for attempt in message.attempts}
            if isinstance(message, kind) and when(message):
                return message
            if isinstance(message, protocol.Beat):
                self.say(protocol.Heartbeat(0))
        raise AssertionError(f"no {kind.__name__} came in {PATIENCE} s")

    async def tasks(self, count: int = 1) -> list[protocol.Assignment]:
        """Return the next `count` assignments."""
        got: list[protocol.Assignment] = []
        while len(got) < count:
            got += (await self.hear(protocol.Tasks)).assignments
        return got

    async def beating_until(self, done: Awaitable[Kind]) -> Kind:
        """Wait for something else, and stay alive for the dispatcher meanwhile."""
        waiting = asyncio.ensure_future(done)
        while not waiting.done():
            self.say(protocol.Heartbeat(0))
            await asyncio.wait({waiting}, timeout=protocol.BEAT)
        return waiting.result()

    def close(self) -> None:
        self._context.destroy(linger=0)


class Fabric:
    """Kafka around a dispatcher: what a test puts in, and what comes out.

    Attributes:
        results: every result that was written, in order.
        statuses: what dispatchers said of the site.
    """

    def __init__(self, settings: Settings, producer: Any) -> None:
        self.settings, self._producer = settings, producer
        self.results: list[Result] = []
        self.records = 0
        self.started: list[str] = []
        self.statuses: list[SiteStatus] = []
        self._changed = asyncio.Event()

    def take(self, record: Any) -> None:
        if record.topic == self.settings.topics.sites:
            self.statuses.append(decode(record.value, SiteStatus))
        else:
            batch = decode(record.value, ResultBatch)
            self.results += batch.results
            self.started += [s.id for s in batch.started]
            self.records += 1
        self._changed.set()

    async def until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Wait until what has come out fulfils a condition."""
        async with asyncio.timeout(patience):
            try:
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
            except asyncio.CancelledError:
                raise AssertionError(f"{what}: not in {PATIENCE} s; results: {self.results}") from None

    async def result(self, id: str) -> Result:
        await self.until(lambda: any(r.id == id for r in self.results), f"a result of {id}")
        (found,) = [r for r in self.results if r.id == id]
        return found

    async def put(self, topic: str, message: Message | bytes, key: bytes | None = None) -> None:
        value = message if isinstance(message, bytes) else encode(message)
        await self._producer.send_and_wait(topic, value, key=key)

    async def code(self, code: FunctionCode = CODE) -> None:
        await self.put(self.settings.topics.registry, code, registry_key(code))

    async def invoke(self, *ids: str, group: str = "g", **more: Any) -> None:
        invocations = tuple(Invocation(id=id, **{"code": "c0", "function": "f", "payload": b"p", **more}) for id in ids)
        batch = InvocationBatch(site=self.settings.site, group=group, submitted=1, invocations=invocations)
        await self.put(self.settings.topics.invocations(self.settings.site), batch, b"c0")

    async def cancel(self, *ids: str) -> None:
        await self.put(self.settings.topics.control(self.settings.site), Cancel(ids=ids))


@asynccontextmanager
async def fabric(kafka: str, prefix: str, home: Path) -> AsyncIterator[Fabric]:
    """A Fabric whose function `c0` is registered, and whose topics are followed."""
    settings = Settings(home=home, kafka=kafka, prefix=prefix, site="local", dispatcher="")
    async with async_producer(kafka, "test") as producer:
        made = Fabric(settings, producer)
        await made.code()
        topics = [settings.topics.results, settings.topics.sites]
        following = asyncio.create_task(follow(kafka, "test", topics, made.take))
        try:
            yield made
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
