"""`upon up`: start all parts on one machine, keep them running, stop them all.

Guarantees: one supervisor per home; a part that dies is started again, with a growing pause, also when the disk is
full, the keeper is killed or a log cannot be written: nothing of that ends supervision, and if anything does, the
system stops and says so. After SIGTERM or SIGINT everything has ended within 5 s; no process stays behind, also when
the supervisor itself is killed (`keeper`), and what stays behind all the same is stopped by the next start
(`leftover`). Addresses are chosen once and kept in the profile, so that a restarted part is found where it was.
Not here: what to run and when to try again (`parts`, pure), how all does (`health`), the broker's own affairs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from upon import processes
from upon.config import Home, Settings
from upon.embedded import addresses, leftover, logfile, parts, rivals
from upon.embedded.broker.broker import Broker
from upon.embedded.broker.folder import BrokerFolder
from upon.embedded.child import Child
from upon.embedded.groups import Groups
from upon.embedded.health import free
from upon.embedded.parts import KAFKA, PARTS, Deaths
from upon.embedded.state import Lock, PartState, SystemState
from upon.embedded.upkeep import EVERY, Upkeep
from upon.errors import AddressTaken, ConfigError, KafkaStartError, PartFailed, UponError
from upon.kafka.answers import answers
from upon.kafka.clients import unavailable
from upon.machine import refusal
from upon.part import SUPERVISOR

STOP_GRACE = 3.0
"""Seconds that the parts have after SIGTERM; Kafka then has `KAFKA_GRACE`. Together under 5 s."""
KAFKA_GRACE = 1.5
EXTERNAL_PATIENCE = 5.0
"""Seconds that a broker named with --kafka has to answer."""

Say = Callable[[str, str], None]
"""Called with a part's name and one line on what happened to it."""


class Supervisor:
    """Runs one system in one home.

    Args:
        settings: of the system; `sources` names its sources file, empty for none.
        external_kafka: address of a broker that somebody else runs; empty: run our own.
        say: told in one line whatever happens to a part.
        locked: called once the home is this supervisor's own.
    """

    def __init__(
        self, settings: Settings, external_kafka: str, say: Say, locked: Callable[[], None] = lambda: None
    ) -> None:
        self.settings = settings
        self.home: Home = settings.places
        self.external_kafka = external_kafka
        self.say = say
        self.stopping, self.all_ready = asyncio.Event(), asyncio.Event()
        self._locked = locked
        self.lost: set[int] = set()  # ports that seemed free, and were not
        self._children: dict[str, Child] = {}
        self._log_begins: dict[str, int] = {}  # where in its log each part's last start begins, bytes
        self._failure: UponError | None = None
        self._alone = asyncio.Event()

    async def run(self) -> None:
        """Run the system until `stopping` is set.

        Raises:
            AddressTaken: another program took an address since it was chosen; the next start chooses another.
            ConfigError: the home cannot be written, or an address is wrong, or taken though the user named it.
            Conflict: a system runs in this home already, or another serves this Kafka's prefix or site.
            KafkaError: Kafka cannot be installed or started.
            PartFailed: a part dies at its start, again and again; or the supervision itself came to an end.
        """
        closed = self.home.make()
        lock = Lock(self.home)
        self._locked()
        if closed:
            self.say("home", f"closed to other users: {', '.join(map(str, closed))}")
        self._groups = Groups()
        try:
            await self._stop_leftovers()
            await self._prepare()
            await self._supervise()
        finally:
            self._kill_all()
            await asyncio.to_thread(self._groups.close)
            with contextlib.suppress(OSError):
                (self.home.run / "state.json").unlink(missing_ok=True)
            lock.release()
        if self._failure is not None:
            raise self._failure

    async def _supervise(self) -> None:
        """Keep all parts until `stopping`, then stop them. A task that ends by itself ends the system, loudly."""
        tasks = {asyncio.create_task(self._keep(name), name=name): name for name in self._names}
        tending = asyncio.create_task(self._upkeep.run(), name="the home")
        stopping = asyncio.create_task(self.stopping.wait())
        if self.external_kafka:
            tasks[asyncio.create_task(self._check_alone())] = "the check for other systems"
        else:
            self._alone.set()
        watched: set[asyncio.Task[Any]] = {*tasks, tending}
        while not stopping.done() and watched:
            done, _ = await asyncio.wait({*watched, stopping}, return_when=asyncio.FIRST_COMPLETED)
            watched -= done
            for task in done - {stopping}:
                if not task.cancelled() and (error := task.exception()) is not None:
                    failed = error if isinstance(error, UponError) else None
                    self._failure = (
                        self._failure
                        or failed
                        or PartFailed(
                            f"the supervision of {tasks.get(task, task.get_name())} ended unexpectedly: {error!r}"
                        )
                    )
                    self.stopping.set()
        self.stopping.set()
        self._alone.set()
        await self._stop()
        tending.cancel()
        await asyncio.gather(*tasks, tending, stopping, return_exceptions=True)

    # ── start ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _stop_leftovers(self) -> None:
        """Stop what a killed supervisor left, before ours starts: two dispatchers would run each task twice."""
        settings = BrokerFolder(self.home.kafka).settings
        for found in await asyncio.to_thread(lambda: leftover.stop_all(leftover.system(self.home.path, settings))):
            self.say(found.name, f"left over from a supervisor that was killed (pid {found.process.pid}): stopped")

    async def _prepare(self) -> None:
        self._names = [*([] if self.external_kafka else [KAFKA]), *PARTS]
        profile = self.home.read_profile()
        self._broker = None
        self.addresses = addresses.chosen(
            kafka=self.external_kafka,
            listen=self.settings.listen,
            dispatcher=os.environ.get("UPON_DISPATCHER", ""),
            last_service=str(profile.get("service", "")),
            last_dispatcher=str(profile.get("dispatcher", "")),
            avoid=self.lost,
        )
        if self.external_kafka:
            await _check_answers(self.external_kafka)
            await rivals.check(self.external_kafka, self.settings.topics, self.settings.site)
        else:
            self._broker = Broker(self.home.kafka)
            await asyncio.to_thread(self._broker.prepare)
            if self._broker.cut_off:
                self.say(KAFKA, parts.describe_cut(self._broker.cut_off))
            self.addresses = replace(self.addresses, kafka=self._broker.address)
        self.token = self.settings.token or secrets.token_urlsafe(32)
        self.home.write_profile(
            service=self.addresses.service,
            dispatcher=self.addresses.dispatcher,
            token=self.token,
            kafka=self.addresses.kafka,
            **self.settings.remembered,
            broker=self.external_kafka,
            workers=str(self.settings.workers),
        )
        self.state = SystemState(
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            kafka=self.addresses.kafka,
            service=self.addresses.service,
            site=self.settings.site,
            parts={name: PartState() for name in self._names},
        )
        self.state.write(self.home)
        self._upkeep = Upkeep(self.home, self.state, self._groups, self.say, self.all_ready.set)

    async def _spawn(self, name: str) -> Child:
        if name == KAFKA:
            assert self._broker is not None
            argv, environment = self._broker.command(), self._broker.environment()
        else:
            argv = parts.command(name, str(self.home.path))
            environment = (
                self.addresses.environment(name)
                | {SUPERVISOR: processes.myself()}
                | (self._secrets() if name == "service" else {})
                | ({"UPON_GRACE": "0"} if name == "manager" else {})  # `upon down --drain` waits, `upon down` does not
                | {
                    f"UPON_{field.upper()}": str(getattr(self.settings, field))
                    for field in ("workers", "sources", "partitions", "log_level", "prefix", "site")
                }
            )
        environment = parts.inherited(name, os.environ) | environment
        self._log_begins[name] = logfile.size(self._log(name))
        child = await Child.spawn(argv, environment, self._log(name))
        self._groups.add(child.pid)
        self._children[name] = child
        return child

    def _secrets(self) -> dict[str, str]:
        return {"UPON_TOKEN": self.token, "UPON_DATABASE": self.settings.database}

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
        if child.process.returncode is not None:
            return None
        return {"address": self.addresses.kafka, "cut_off": self._broker.cut_off}

    # ── keep running ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self, name: str) -> None:
        """Run one part again and again until the system stops."""
        state, deaths, lasting = self.state.parts[name], Deaths(), False
        if name == "dispatcher":  # two dispatchers of one site would run each task twice
            await self._alone.wait()
        while not self.stopping.is_set():
            await self._wait_for_room(name)
            if self.stopping.is_set():
                break
            ready_for: float | None = None
            code: int | None = None
            try:
                ready_for, code = await self._live(name, parts.DOUBT if lasting else 0.0)
                lasting = code == parts.LASTING
                reason = await asyncio.to_thread(self._reason, name, code) if code not in parts.STOPPED else ""
            except Exception as error:  # the machine does not let us: no process, no descriptor, no room for its log
                reason = refusal(error) or f"{type(error).__name__}: {error}"
            if self.stopping.is_set():
                break
            deaths = deaths.died(ready_for)
            then = deaths.after(name, code)
            if then == "give up":
                self._give_up(name, code, reason)
                break
            how = "could not be started" if code is None else f"died ({parts.describe_exit(code)})"
            if code in parts.STOPPED:
                how = "was stopped"
            delay = parts.LONGEST_DELAY if then == "later" else deaths.delay
            known = state.state == "failed" and state.reason == reason
            self._upkeep.write(
                name,
                state="failed" if then == "later" else "down",
                pids=[],
                restarts=state.restarts + 1,
                reason=reason or how,
            )
            if not known:
                again = "tried again every" if then == "later" else "restarting in"
                why = f": {reason}" if reason and (code is None or code > 0) else ""
                self.say(name, f"{how}; {again} {delay:.1f} s{why}")
            await self._sleep(delay)
        self._upkeep.write(name, state="stopped", pids=[])

    async def _live(self, name: str, doubt: float) -> tuple[float | None, int]:
        """Run a part once; return for how many seconds it was ready (None: never) and its exit code.

        Args:
            doubt: s for which it must be ready before it counts as up.
        """
        state, began = self.state.parts[name], time.monotonic()
        child = await self._spawn(name)
        try:
            self._upkeep.write(name, state="failed" if state.state == "failed" else "starting", pids=[child.pid])
            info, since = await self._wait_ready(name, child), time.monotonic()
            ended = asyncio.create_task(child.wait())
            if info is not None and doubt:
                await asyncio.wait({ended}, timeout=doubt)
            if info is not None and not ended.done() and not self.stopping.is_set():
                self._upkeep.write(name, state="up", info=info, reason="")
                again = "again " if state.restarts else ""
                self.say(name, f"up {again}after {since - began:.1f} s{_where(info)}")
            code = await ended
            if info is None and name == KAFKA and self._broker is not None:
                lost = await asyncio.to_thread(self._broker.lost_port, self._said(name), code)
                code = parts.TAKEN if lost else code
            return None if info is None else time.monotonic() - since, code
        finally:
            child.kill_group()
            self._groups.discard(child.pid)

    def _give_up(self, name: str, code: int | None, reason: str) -> None:
        how = "" if code is None else f" ({parts.describe_exit(code)})"
        if code == parts.TAKEN and not self._named(name):
            self._failure = AddressTaken(f"{name}: {reason}")
            self.lost |= self.addresses.ports(name)
        elif name == KAFKA and code is not None:
            self._failure = KafkaStartError(reason)
        else:
            self._failure = PartFailed(
                f"{name} does not start{how}: {reason or 'it said nothing'}\nIts log: {self._log(name)}"
            )
        self.stopping.set()

    # ── beside the parts ──────────────────────────────────────────────────────────────────────────────────────────

    async def _wait_for_room(self, name: str) -> None:
        while (why := parts.lacks_room(name, free(self.home.path))) and not self.stopping.is_set():
            if self.state.parts[name].reason != why.partition(" (")[0]:
                self._upkeep.write(name, state="down", pids=[], reason=why.partition(" (")[0])
                self.say(name, why)
            await self._sleep(EVERY)

    async def _check_alone(self) -> None:
        """Once our stream worker is seen by all, look who else is: of two that start at once none runs beside another.

        Raises:
            Conflict: another system serves this prefix.
        """
        while self.state.parts["streams"].state != "up":
            await self._sleep(0.02)
            if self.stopping.is_set():
                return
        await rivals.check_prefix(self.external_kafka, self.settings.topics)
        self._alone.set()

    async def _sleep(self, seconds: float) -> None:
        """Wait, at most until the system stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    def _named(self, name: str) -> bool:
        """Return whether the user named the port at which a part listens."""
        wanted = {"service": self.settings.listen, "dispatcher": os.environ.get("UPON_DISPATCHER", "")}
        return bool(addresses.port(wanted.get(name, "")))

    def _said(self, name: str) -> str:
        """Return what a part has said since its last start."""
        return logfile.end(self._log(name), self._log_begins.get(name, 0))

    def _reason(self, name: str, code: int) -> str:
        """Return why a part ended, as its log tells it; what Kafka's next start can repair is marked for it."""
        if name == KAFKA and self._broker is not None:
            return self._broker.diagnose(self._said(name), code)
        return parts.last_message(self._said(name).splitlines())

    # ── stop ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _stop(self) -> None:
        """End our parts together, then Kafka, which they may still need to flush."""
        ours = [child for name, child in self._children.items() if name != KAFKA]
        await _end(ours, STOP_GRACE)
        await _end([child for name, child in self._children.items() if name == KAFKA], KAFKA_GRACE)

    def _kill_all(self) -> None:
        for child in self._children.values():
            child.kill_group()

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


def _where(info: dict[str, Any]) -> str:
    """Return what a part told at its start that a person wants to know: its address, or what of it does not work."""
    if failing := info.get("failing"):
        return "".join(f"; source {name} is failing: {reason}" for name, reason in failing.items())
    for key in ("address", "service", "dispatcher"):
        if key in info:
            return f", {info[key]}"
    return ""
