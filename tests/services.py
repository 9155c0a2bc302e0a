"""A running service for a test: the real part in a process of its own, a client, and the records of a site."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec

from tests.systems import pause
from upon import api
from upon.kafka.clients import async_consumer, async_producer
from upon.messages import (
    Invocation,
    InvocationBatch,
    ManagerStatus,
    Message,
    Result,
    ResultBatch,
    SiteStatus,
    Started,
    Timings,
    decode,
    encode,
)
from upon.part import READY_FD
from upon.serialize import dumps, pack_call
from upon.topics import Topics

T = TypeVar("T")
TOKEN = "secret-of-a-test"
RULE = """
version: 1
rules:
  - name: thumbs
    upon: {type: [upon.file.ready]}
    run: {function: thumbs.make, site: local, args: ["${subject}"]}
"""
DEADLINE = 30.0
PROGRAM = """
import sys
from upon.config import Settings
from upon.part import run_part
from upon.service.app import main
sys.exit(run_part("service", Settings.load(), main))
"""


async def eventually(ask: Callable[[], Awaitable[T | None]], what: str, timeout: float = DEADLINE) -> T:
    """Return what `ask` gives as soon as it is true; fail after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        if found := await ask():
            return found
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        await asyncio.sleep(pause(time.monotonic() - began))


class Running:
    """A service that runs, and a client of it.

    Attributes:
        url: its address.
        records: of its topics.
    """

    def __init__(self, kafka: str, topics: Topics, home: Path, **environment: str) -> None:
        self.kafka, self.topics, self.home = kafka, topics, home
        self.records = Records(kafka, topics)
        self.url = ""
        self.log = home / "service.log"
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("UPON_")},
            "UPON_HOME": str(self.home),
            "UPON_KAFKA": self.kafka,
            "UPON_PREFIX": self.topics.prefix,
            "UPON_TOKEN": TOKEN,
            "UPON_LISTEN": "127.0.0.1:0",
            **self._environment,
        }
        reading, writing = os.pipe()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM,
                env={**environment, READY_FD: str(writing)}, pass_fds=(writing,), stdout=log, stderr=log,
            )  # fmt: skip
        os.close(writing)
        async with asyncio.timeout(60):
            line = await asyncio.to_thread(_read, reading)
        assert line, f"the service did not start:\n{self.log.read_text()}"
        self.url = json.loads(line)["service"]
        self._session = aiohttp.ClientSession(self.url, headers={"Authorization": f"Bearer {TOKEN}"})

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal (SIGTERM) and return the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(DEADLINE):
            code = await self._process.wait()
        if self._session is not None:
            await self._session.close()
        return code

    async def kill(self) -> None:
        await self.stop(signal.SIGKILL)

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **options: Any) -> Any:
        """Return the JSON of an answer, which must have `status`."""
        assert self._session is not None
        data = None if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with self._session.request(method, path, data=data, **options) as response:
            found = await response.read()
            assert response.status == status, f"{method} {path}: {response.status} {found[:2000]!r}\n{self.last_log()}"
            return msgspec.json.decode(found)

    def last_log(self) -> str:
        return self.log.read_text()[-4000:]

    async def refused(self, method: str, path: str, body: Any = None, *, status: int, **options: Any) -> api.Problem:
        return msgspec.convert(await self.ask(method, path, body, status=status, **options), api.Problem)

    async def task(self, id: str) -> api.Task:
        return msgspec.convert(await self.ask("GET", f"/v1/tasks/{id}"), api.Task)

    async def task_with(self, id: str, status: str) -> api.Task:
        """Return a task as soon as it has `status`."""

        async def ask() -> api.Task | None:
            task = await self.task(id)
            return task if task.status == status else None

        return await eventually(ask, f"task {id} is {status}")

    async def register(self, name: str = "demo.double", body: bytes = b"code") -> api.Function:
        new = api.NewFunction(name=name, body=body, python="3.11")
        return msgspec.convert(await self.ask("POST", "/v1/functions", new), api.Function)

    async def wait_site(self, site: str = "local") -> None:
        async def known() -> bool:
            return any(one["name"] == site for one in await self.ask("GET", "/v1/sites"))

        await eventually(known, f"site {site} is known")

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[Stream]:
        assert self._session is not None
        async with self._session.ws_connect("/v1/stream", max_msg_size=0, heartbeat=20) as socket:
            yield Stream(socket)


class Stream:
    """A client's end of the WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.waiting: list[Any] = []

    async def send(self, frame: Any) -> None:
        await self.socket.send_bytes(api.encode_frame(frame))

    async def next(self, kind: type[T]) -> T:
        """Return the next frame of a class; others wait for their turn."""
        for waiting in self.waiting:
            if isinstance(waiting, kind):
                self.waiting.remove(waiting)
                return waiting
        async with asyncio.timeout(DEADLINE):
            while True:
                message = await self.socket.receive()
                assert message.type is aiohttp.WSMsgType.BINARY, message
                frame: Any = api.decode_from_service(message.data)
                if isinstance(frame, kind):
                    return frame
                self.waiting.append(frame)

    async def ask(self, frame: Any) -> Any:
        """Send a request and return its Done or Refused."""
        await self.send(frame)
        return await self.next(api.Done | api.Refused)  # type: ignore[arg-type]

    async def results(self, count: int) -> dict[str, Result]:
        """Return results by id as they are pushed, once there are `count`."""
        found: dict[str, Result] = {}
        while len(found) < count:
            found |= {one.id: one for one in (await self.next(api.Results)).results}
        return found


@asynccontextmanager
async def service(kafka: str, topics: Topics, home: Path | None = None, **environment: str) -> AsyncIterator[Running]:
    """A started service; stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="upon-service-") as folder:
        one = Running(kafka, topics, home or Path(folder), **environment)
        await one.start()
        try:
            yield one
        finally:
            code = await one.stop()
            assert code in (0, -signal.SIGKILL), one.log.read_text()


class Records:
    """Writes the records that the other parts write, and reads those that the service writes."""

    def __init__(self, kafka: str, topics: Topics) -> None:
        self.kafka, self.topics = kafka, topics

    async def write(self, topic: str, *messages: Message | bytes, key: bytes | None = None) -> None:
        async with async_producer(self.kafka, "test") as producer:
            acks = [await producer.send(topic, m if isinstance(m, bytes) else encode(m), key=key) for m in messages]
            for ack in acks:
                await ack

    async def announce(self, site: str = "local", **fields: Any) -> None:
        manager = ManagerStatus(id="m1", host="here", pid=7, workers=(8, 9), slots=2, busy=1, python="3.11")
        given: dict[str, Any] = {"site": site, "pid": 6, "host": "here", "at": time.time_ns(), "managers": (manager,)}
        await self.write(self.topics.sites, SiteStatus(**given | fields), key=site.encode())

    async def invocations(self, *batches: InvocationBatch) -> None:
        for batch in batches:
            await self.write(self.topics.invocations(batch.site), batch)

    async def results(self, *results: Result, site: str = "local", started: Iterable[Started] = ()) -> None:
        """Write one record, with the key that a dispatcher gives it: the group of all that is in it, if it is one."""
        batch = ResultBatch(site=site, results=results, started=tuple(started))
        groups = {one.group for one in batch.results} | {one.group for one in batch.started}
        key = groups.pop().encode() if len(groups) == 1 else b""
        await self.write(self.topics.results, batch, key=key or None)

    async def read(self, topic: str, kind: type[T], count: int) -> list[T]:
        """Return the first `count` records of a topic."""
        return await self.read_until(topic, kind, lambda found: len(found) >= count)

    async def read_until(self, topic: str, kind: type[T], enough: Callable[[list[T]], bool]) -> list[T]:
        """Return the records of a topic, as soon as they are enough."""
        found: list[T] = []
        async with async_consumer(self.kafka, "test", [topic]) as consumer, asyncio.timeout(DEADLINE):
            await consumer.seek_to_beginning()
            while not enough(found):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += [decode(record.value, kind) for record in records]
        return found


def invocation(id: str, code: str = "c", **fields: Any) -> Invocation:
    given: dict[str, Any] = {"id": id, "code": code, "function": "pow", "payload": pack_call([2, 10], {})}
    return Invocation(**given | fields)


def result(id: str, value: Any = 1024, **fields: Any) -> Result:
    """A succeeded result, one second after 2026-01-01."""
    at = 1_767_225_600_000_000_000
    timings = Timings(submitted=at, received=at + 10**6, dispatched=at + 2 * 10**6, started=at + 3 * 10**6,
                      finished=at + 5 * 10**6, returned=at + 6 * 10**6)  # fmt: skip
    given: dict[str, Any] = {"id": id, "status": "succeeded", "function": "pow", "payload": dumps(value)}
    return Result(**given | {"preview": repr(value), "timings": timings, "worker": "m1/8"} | fields)


def _read(descriptor: int) -> str:
    with os.fdopen(descriptor) as pipe:
        return pipe.readline()
