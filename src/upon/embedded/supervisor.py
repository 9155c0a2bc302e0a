"""`upon up`: start all parts on one machine, keep them running, stop them all.

Guarantees: one supervisor per home; a part that dies is started again, with a growing pause; after SIGTERM or SIGINT
everything has ended within 5 s; no process stays behind, also when the supervisor itself is killed (`keeper`).
Addresses are chosen once and kept in the profile, so that a restarted part is found where it was.
Not here: what to run and when to try again (`parts`, pure), the broker's own affairs (`broker`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from upon.config import Home, Settings
from upon.embedded import parts
from upon.embedded.broker import Broker
from upon.embedded.child import Child
from upon.embedded.parts import KAFKA, PARTS, Addresses, Deaths
from upon.embedded.ports import free_port, is_free
from upon.embedded.state import Lock, PartState, SystemState
from upon.errors import ConfigError, KafkaStartError, PartFailed, UponError
from upon.kafka.answers import answers
from upon.kafka.clients import unavailable

STOP_GRACE = 3.0
"""Seconds that the parts have after SIGTERM; Kafka then has `KAFKA_GRACE`. Together under 5 s."""
KAFKA_GRACE = 1.5
EXTERNAL_PATIENCE = 5.0
"""Seconds that a broker named with --kafka has to answer."""
LOG_END = 20_000
"""Bytes at the end of a part's log in which the reason of its death is looked for."""
SAID_WHY = 2
"""Exit code of a part that stopped with an error of the tree: at its first start, trying again will not help."""

Say = Callable[[str, str], None]
"""Called with a part's name and one line on what happened to it."""


class Supervisor:
    """Runs one system in one home.

    Args:
        settings: of the system; `kafka` set by the caller means an external broker.
        external_kafka: address of a broker that somebody else runs; empty: run our own.
        say: told in one line whatever happens to a part.
    """

    def __init__(self, settings: Settings, external_kafka: str, say: Say) -> None:
        self.settings = settings
        self.home: Home = settings.places
        self.external_kafka = external_kafka
        self.say = say
        self.stopping = asyncio.Event()
        self.all_ready = asyncio.Event()
        self._children: dict[str, Child] = {}
        self._failure: UponError | None = None

    async def run(self) -> None:
        """Run the system until `stopping` is set.

        Raises:
            Conflict: a system runs in this home already.
            KafkaError: Kafka cannot be installed or started.
            PartFailed: a part dies at its start, again and again.
        """
        lock = Lock(self.home)
        keeper = _start_keeper()
        try:
            self._keeper = keeper
            await self._prepare()
            keepers = [asyncio.create_task(self._keep(name)) for name in self._names]
            await self.stopping.wait()
            await self._stop()
            await asyncio.gather(*keepers)
        finally:
            self._kill_all()
            assert keeper.stdin is not None
            keeper.stdin.close()
            await asyncio.to_thread(keeper.wait)
            (self.home.run / "state.json").unlink(missing_ok=True)
            lock.release()
        if self._failure is not None:
            raise self._failure

    # ── start ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _prepare(self) -> None:
        self._names = [*([] if self.external_kafka else [KAFKA]), *PARTS]
        profile = self.home.read_profile()
        self._broker = None
        if self.external_kafka:
            await _check_answers(self.external_kafka)
        else:
            self._broker = Broker(self.home.kafka)
            await asyncio.to_thread(self._broker.prepare)
        self.addresses = Addresses(
            kafka=self.external_kafka or self._broker.address,  # type: ignore[union-attr]
            service=f"127.0.0.1:{_port(profile.get('service', ''))}",
            dispatcher=f"tcp://127.0.0.1:{_port(profile.get('dispatcher', ''))}",
        )
        self.home.write_profile(
            service=f"http://{self.addresses.service}",
            dispatcher=self.addresses.dispatcher,
            token=profile.get("token") or secrets.token_urlsafe(32),
            kafka=self.addresses.kafka,
            prefix=self.settings.prefix,
            site=self.settings.site,
        )
        self.state = SystemState(
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            kafka=self.addresses.kafka,
            service=f"http://{self.addresses.service}",
            site=self.settings.site,
            parts={name: PartState() for name in self._names},
        )
        self.state.write(self.home)

    async def _spawn(self, name: str) -> Child:
        if name == KAFKA:
            assert self._broker is not None
            argv, environment = self._broker.command(), self._broker.environment()
        else:
            argv = parts.command(name, str(self.home.path))
            environment = parts.environment(self.addresses) | {
                f"UPON_{field.upper()}": str(getattr(self.settings, field))
                for field in ("workers", "sources", "partitions", "log_level", "database", "prefix", "site")
            }
        child = await Child.spawn(argv, environment, self._log(name))
        self._note(f"+{child.pid}")
        self._children[name] = child
        return child

    async def _wait_ready(self, name: str, child: Child) -> dict[str, Any] | None:
        """Return what the child tells once it is ready; None if it ends before."""
        if name != KAFKA:
            return await child.ready or None
        ended = asyncio.create_task(child.wait())
        assert self._broker is not None
        cluster = self._broker.identity.cluster  # so that another Kafka at this port is not taken for ours
        ready = asyncio.create_task(answers(self.addresses.kafka, timeout=120, cluster=cluster))
        await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, ready):
            task.cancel()
        if child.process.returncode is None and not ready.result():
            child.kill_group()
        return None if child.process.returncode is not None else {"address": self.addresses.kafka}

    # ── keep running ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self, name: str) -> None:
        """Run one part again and again until the system stops."""
        state, deaths = self.state.parts[name], Deaths()
        while not self.stopping.is_set():
            began = time.monotonic()
            child = await self._spawn(name)
            self._write(name, state="starting", pids=[child.pid])
            info, since = await self._wait_ready(name, child), time.monotonic()
            if info is not None and not self.stopping.is_set():
                self._write(name, state="up", info=info)
                again = "again " if state.restarts else ""
                self.say(name, f"up {again}after {since - began:.1f} s{_where(info)}")
            code = await child.wait()
            child.kill_group()
            self._note(f"-{child.pid}")
            if self.stopping.is_set():
                break
            deaths = deaths.died(None if info is None else time.monotonic() - since)
            reason = self._reason(name)
            self._write(name, state="down", pids=[], restarts=state.restarts + 1)
            if deaths.hopeless or (code == SAID_WHY and not deaths.ever_ready):
                self._give_up(name, code, reason)
                break
            self.say(
                name,
                f"died ({parts.describe_exit(code)}); restarting in {deaths.delay:.1f} s"
                + (f": {reason}" if reason and code > 0 else ""),
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), deaths.delay)
        self._write(name, state="stopped", pids=[])

    def _give_up(self, name: str, code: int, reason: str) -> None:
        message = f"{name} does not start ({parts.describe_exit(code)}): {reason or 'it said nothing'}"
        if name == KAFKA and self._broker is not None:
            self._failure = KafkaStartError(self._broker.diagnose(self._log_end(name), code))
        else:
            self._failure = PartFailed(f"{message}\nIts log: {self._log(name)}")
        self.stopping.set()

    def _reason(self, name: str) -> str:
        return "" if name == KAFKA else parts.last_message(self._log_end(name).splitlines())

    def _log_end(self, name: str) -> str:
        try:
            with self._log(name).open("rb") as log:
                log.seek(max(0, self._log(name).stat().st_size - LOG_END))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _write(self, name: str, **changes: Any) -> None:
        part = self.state.parts[name]
        for field, value in changes.items():
            setattr(part, field, value)
        self.state.ready = all(p.state == "up" for p in self.state.parts.values())
        if self.state.ready:
            self.all_ready.set()
        self.state.write(self.home)

    # ── stop ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _stop(self) -> None:
        """End our parts together, then Kafka, which they may still need to flush."""
        ours = [child for name, child in self._children.items() if name != KAFKA]
        await _end(ours, STOP_GRACE)
        await _end([child for name, child in self._children.items() if name == KAFKA], KAFKA_GRACE)

    def _kill_all(self) -> None:
        for child in self._children.values():
            child.kill_group()

    def _note(self, line: str) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(line + "\n")
        self._keeper.stdin.flush()

    def _log(self, name: str) -> Path:
        return self.home.logs / f"{name}.log"


async def _end(children: list[Child], grace: float) -> None:
    waiting = [asyncio.create_task(child.wait()) for child in children]
    for child in children:
        child.tell(signal.SIGTERM)
    if waiting:
        await asyncio.wait(waiting, timeout=grace)
    for child in children:
        child.kill_group()


async def _check_answers(kafka: str) -> None:
    """Raise an error now if nobody answers at an address that the user gave; ConfigError if it is none."""
    for address in kafka.split(","):
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdigit()):
            raise ConfigError(f"--kafka {kafka}: write HOST:PORT, or several with commas between them")
    if not await answers(kafka, EXTERNAL_PATIENCE):
        raise unavailable(kafka, f"no answer within {EXTERNAL_PATIENCE:.0f} s")


def _start_keeper() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("keeper.py"))],
        stdin=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def _port(address: str) -> int:
    """Return the port of the last run if it is still free, else a free one."""
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() and is_free(int(port)) else free_port()


def _where(info: dict[str, Any]) -> str:
    """Return what a part told at its start that a person wants to know: its address, or what of it does not work."""
    if failing := info.get("failing"):
        return "".join(f"; source {name} is failing: {reason}" for name, reason in failing.items())
    for key in ("address", "service", "dispatcher"):
        if key in info:
            return f", {info[key]}"
    return ""
