"""What the manager's tests stand on: the real part in its own process, and a dispatcher's socket driven by hand."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import cloudpickle
import psutil

from upon import serialize
from upon.code_hash import code_hash
from upon.dispatcher import protocol, wire
from upon.dispatcher.keys import curve_folder, dispatcher_keys
from upon.dispatcher.protocol import Assignment, Attempt, Death, FromDispatcher, FromManager, Outcome
from upon.dispatcher.router import Gone, Router
from upon.endpoint.execution import PYTHON
from upon.messages import FunctionCode

PATIENCE = 30.0
PROGRAM = (
    "import sys; from upon.config import Settings; from upon.part import run_part; from upon.endpoint.manager "
    "import main; sys.exit(run_part('manager', Settings.load(), main, needs_kafka=False))"
)


class Site:
    """The dispatcher's end: its ROUTER, what the manager said, and the words a dispatcher says.

    Attributes:
        heard: everything that came, in order.
        outcomes, deaths, begun: the same, by invocation id.
    """

    def __init__(self, home: Path, address: str = "") -> None:
        self.home = home
        self.curve = curve_folder(home / "endpoint" / "local")
        self.manager = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.heard: list[FromManager] = []
        self.outcomes: dict[str, list[Outcome]] = {}
        self.deaths: dict[str, list[Death]] = {}
        self.begun: dict[str, list[protocol.Begun]] = {}
        self.codes: dict[str, FunctionCode] = {}
        self.gone = 0
        self.known = True  # whether it welcomes a manager that says Ready
        self._news = asyncio.Event()
        self.open(address)

    def open(self, address: str = "") -> None:
        self.router = Router(address, dispatcher_keys(self.curve), self.curve, self._wake)
        self.address = self.router.address

    def restart(self) -> None:
        """End as a killed dispatcher does, and be back as a new one at the same place, which has to hear Ready."""
        self.router.close()
        self.manager = ""
        self.open(self.address)

    def _wake(self) -> None:
        self.gone += len(list(self.router.broken()))
        for event in self.router.receive():
            if isinstance(event, Gone):
                self.gone += 1
                continue
            self.manager, frames = event
            self._take(wire.from_manager(frames))
        if self.router.pending():
            asyncio.get_running_loop().call_soon(self._wake)
        self._news.set()

    def _take(self, message: FromManager) -> None:
        self.heard.append(message)
        match message:
            case protocol.Ready():
                self.say(protocol.Beat(self.known, "s"))
            case protocol.Results(outcomes):
                for outcome in outcomes:
                    self.outcomes.setdefault(outcome.id, []).append(outcome)
            case protocol.Lost(deaths):
                for death in deaths:
                    self.deaths.setdefault(death.id, []).append(death)
            case protocol.Started(begun):
                for one in begun:
                    self.begun.setdefault(one.id, []).append(one)
            case protocol.Need(codes):
                for code in codes:
                    if code in self.codes:
                        self.say(protocol.Code(self.codes[code]))

    def say(self, message: FromDispatcher) -> None:
        self.router.send(self.manager, wire.pack(message))
        asyncio.get_running_loop().call_soon(self._wake)

    async def until(self, condition: Callable[[], Any], what: str = "what was waited for") -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 0.1)
            assert time.monotonic() < end, f"{what} did not come; heard: {self.heard[-5:]}"

    def code(self, function: Callable[..., Any]) -> str:
        """Make a function known, and send it; return its hash."""
        for name, module in list(sys.modules.items()):
            if name.startswith("tests."):  # workers cannot import it, and need not
                cloudpickle.register_pickle_by_value(module)
        body = serialize.dump_function(function)
        code = code_hash(body)
        if code not in self.codes:
            self.codes[code] = FunctionCode(hash=code, body=body, python=PYTHON)
            if self.manager:
                self.say(protocol.Code(self.codes[code]))
        return code

    def task(
        self, id: str, function: Callable[..., Any], *args: Any, attempt: int = 1, timeout: float = 0.0
    ) -> Assignment:
        name = getattr(function, "__name__", "f")
        return Assignment(id, attempt, self.code(function), name, serialize.pack_call(args, {}), 0, timeout)

    def assign(self, *assignments: Assignment) -> None:
        self.say(protocol.Tasks.of(assignments))

    async def outcome(self, id: str, count: int = 1) -> Outcome:
        await self.until(lambda: len(self.outcomes.get(id, ())) >= count, f"outcome of {id}")
        return self.outcomes[id][-1]

    async def run(self, id: str, function: Callable[..., Any], *args: Any, **more: Any) -> Outcome:
        self.assign(self.task(id, function, *args, **more))
        return await self.outcome(id)

    async def value(self, id: str, function: Callable[..., Any], *args: Any) -> Any:
        outcome = await self.run(id, function, *args)
        assert outcome.failure is None, outcome.failure
        return serialize.loads(outcome.payload)

    def stored(self, *ids: str) -> None:
        self.say(protocol.Stored(tuple(Attempt(id, self.outcomes[id][-1].attempt) for id in ids)))

    @property
    def ready(self) -> list[protocol.Ready]:
        return [message for message in self.heard if isinstance(message, protocol.Ready)]

    def processes(self) -> list[psutil.Process]:
        """The manager and all its descendants, alive now."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            manager = psutil.Process(self.process.pid)
            return [manager, *manager.children(recursive=True)]
        return []


@asynccontextmanager
async def managed(workers: int = 2) -> AsyncIterator[Site]:
    """A manager that has said Ready to a site; no process of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="upon-manager-") as folder:
        site = Site(Path(folder))
        start(site, workers)
        try:
            await site.until(lambda: site.ready, "Ready")
            processes = site.processes()
            yield site
            processes += site.processes()
            stop(site)
            await gone(site, processes)
        finally:
            stop(site)
            site.router.close()


def start(site: Site, workers: int, home: Path | None = None, program: str = PROGRAM) -> None:
    environment = {
        **os.environ,
        "UPON_HOME": str(home or site.home),
        "UPON_DISPATCHER": site.address,
        "UPON_WORKERS": str(workers),
        "UPON_GRACE": "0",
        "UPON_SITE": "local",
    }
    site.process = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE)


def stop(site: Site) -> None:
    assert site.process is not None
    if site.process.poll() is None:
        site.process.terminate()
    with suppress(subprocess.TimeoutExpired):
        site.process.wait(PATIENCE)
    site.process.kill()
    site.process.wait()


async def gone(site: Site, processes: list[psutil.Process]) -> None:
    """Wait until none of these lives; one that is only waiting to be reaped by its new parent counts as gone."""
    await site.until(lambda: not any(map(alive, processes)), "the end of all processes")


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
