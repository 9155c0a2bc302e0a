"""All that works at a site is killed or stopped at random: nothing is lost, nothing done twice that need not be.

    python -m tests.failures.chaos [SECONDS [SEED]]        default 600 s (`make chaos`)

Two dispatchers (one stands by), two managers with two workers each, all real processes over a real Kafka. Faults: kill
-9 of a dispatcher, a manager, a worker; SIGSTOP of a dispatcher or a manager for longer than a heartbeat, then SIGCONT.
What is killed is started again at once. Each execution leaves a trace; a task may have more than one only if a worker
or a manager that ran it was killed or stopped: those are counted and compared with the faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.failures.load import work
from tests.integration.dispatching import Fabric, dispatcher_process, fabric
from tests.integration.test_dispatcher import free_address
from tests.integration.test_fabric import manager_process, registered
from upon.embedded.broker.broker import Broker
from upon.kafka.admin import ensure_topics
from upon.messages import Retry
from upon.serialize import pack_call
from upon.topics import Topics

WORKERS = 2
BATCH = 10
"""Tasks submitted together, twenty times a second."""
AHEAD = 3
"""Tasks that a worker may have at a time: the one it runs, and two ahead of its turn. While its manager is stopped it
runs them all, and what it has done and nobody was told of is done again."""
STOPPED = 4.5
"""Seconds for which something is stopped: longer than the three after which it counts as gone."""
PATIENT = Retry(attempts=50, jitter=False)


class Site:
    """The processes of a site, and what is done to them.

    Attributes:
        excuses: executions that there may be beyond one for each task, from the faults so far.
        faults: how often there was which.
    """

    def __init__(self, f: Fabric, effects: Path, dice: random.Random) -> None:
        self.f, self.effects, self.dice = f, effects, dice
        self.addresses = [free_address(), free_address()]
        self.dispatchers = [self._dispatcher(number) for number in range(2)]
        self.managers = [self._manager() for _ in range(2)]
        self.ids: list[str] = []
        self.excuses, self.faults = 0, Counter[str]()
        self._stopped: dict[subprocess.Popen[bytes], float] = {}

    def _dispatcher(self, number: int) -> subprocess.Popen[bytes]:
        return dispatcher_process(self.f.settings, self.addresses[number])

    def _manager(self) -> subprocess.Popen[bytes]:
        return manager_process(self.f.settings, ",".join(self.addresses), WORKERS)

    async def submit(self, code: str) -> None:
        for _ in range(BATCH):
            self.ids.append(f"t{len(self.ids)}")
            payload = pack_call([self.ids[-1], str(self.effects)], {})
            await self.f.invoke(self.ids[-1], code=code, payload=payload, retry=PATIENT)

    def strike(self) -> None:
        """Do something bad."""
        what = self.dice.choice(("dispatcher killed", "manager killed", "worker killed", "dispatcher stopped",
                                 "manager stopped"))  # fmt: skip
        self.faults[what] += 1
        number = self.dice.randrange(2)
        if what == "dispatcher killed":
            _end(self.dispatchers[number])
            self._stopped.pop(self.dispatchers[number], None)
            self.dispatchers[number] = self._dispatcher(number)
        elif what == "manager killed":
            self.excuses += WORKERS * AHEAD
            _end(self.managers[number])
            self._stopped.pop(self.managers[number], None)
            self.managers[number] = self._manager()
        elif what == "worker killed":
            self.excuses += 1
            if workers := _workers(self.managers[number]):
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.dice.choice(workers).kill()
        else:
            victim = (self.dispatchers if what.startswith("dispatcher") else self.managers)[number]
            if victim not in self._stopped:
                self.excuses += WORKERS * AHEAD if what.startswith("manager") else 0
                victim.send_signal(signal.SIGSTOP)
                self._stopped[victim] = time.monotonic()

    def wake(self, after: float = STOPPED) -> None:
        """Let those go on that were stopped for long enough."""
        for process, since in list(self._stopped.items()):
            if time.monotonic() - since >= after:
                process.send_signal(signal.SIGCONT)
                del self._stopped[process]

    def close(self) -> None:
        self.wake(0.0)
        for process in (*self.managers, *self.dispatchers):
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _workers(manager: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return a manager's workers: the children of its child, the warm parent."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [worker for parent in psutil.Process(manager.pid).children() for worker in parent.children()]
    return []


async def chaos(kafka: str, prefix: str, folder: Path, seconds: float, seed: int) -> str:
    """Strike a working site for so long; return what came of it, in words.

    Raises:
        AssertionError: something was lost, or done twice without an excuse.
    """
    dice = random.Random(seed)
    async with fabric(kafka, prefix, folder / "home") as f:
        site = Site(f, folder / "effects", dice)
        try:
            code = await registered(f, work)
            until = time.monotonic() + seconds
            next_fault = time.monotonic() + 2.0
            while time.monotonic() < until:
                await site.submit(code)
                site.wake()
                if time.monotonic() >= next_fault:
                    site.strike()
                    next_fault = time.monotonic() + dice.uniform(0.3, 2.0)
                await asyncio.sleep(0.05)
            site.wake(0.0)
            asked = set(site.ids)
            await f.until(lambda: len({result.id for result in f.results}) >= len(asked), "all results", 120 + seconds)
        finally:
            site.close()
        results, runs = Counter(result.id for result in f.results), Counter(site.effects.read_text().split())
        again = sum(runs.values()) - len(runs)
        bad = [f"{r.id}: {r.status}" for r in f.results if r.status != "succeeded"]
        assert not bad, f"failed: {bad[:10]}"
        assert runs.keys() == asked == results.keys(), "lost"
        story = f"{again} executions again, {site.excuses} have an excuse: {dict(site.faults)}, seed {seed}"
        assert again <= site.excuses, story
        twice = sum(results.values()) - len(results)
        return f"{len(asked):,} tasks, none lost; {twice} results written twice; {story}"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder) / "kafka")
        broker.start()
        try:
            broker.wait_ready(60)
            print(f"striking for {seconds:.0f} s, seed {seed}", flush=True)
            asyncio.run(ensure_topics(broker.address, [*Topics("chaos").shared(), *Topics("chaos").of_site("local")]))
            print(asyncio.run(chaos(broker.address, "chaos", Path(folder), seconds, seed)))
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
