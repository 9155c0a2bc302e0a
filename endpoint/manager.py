"""The manager: takes tasks from its site's dispatcher, has its workers run them, answers.

    dispatcher ══ Links ═▶ Ledger (done before?) ─▶ Pool (decides) ─▶ Workers (processes)
               ◀═ Links ═  Ledger (kept until stored) ◀─ Pool ◀──────┘

Everything that is decided is decided in `Pool` and `Ledger`, which are pure; this file carries it out, in order.
Guarantees: while the dispatcher is away tasks run on, and their outcomes are sent when it is back; a task that it
sends twice runs once; when this process ends, however it ends, no worker stays behind.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from upon.config import Settings
from upon.dispatcher import protocol
from upon.dispatcher.keys import curve_folder
from upon.dispatcher.protocol import BATCH_BYTES, BEAT, Attempt, Death, FromDispatcher, Outcome
from upon.dispatcher.wire import outcome_bytes, version_of
from upon.endpoint.channel import Code, FromWorker
from upon.endpoint.decisions.endings import bounded, exit_story
from upon.endpoint.decisions.instructions import Back, Died, Ended, Fork, Give, Instruction, Kill, Lack, Reclaim, Slow
from upon.endpoint.decisions.ledger import Ledger
from upon.endpoint.decisions.pool import Pool
from upon.endpoint.environment import allowed, told
from upon.endpoint.execution import PYTHON
from upon.endpoint.links import Links
from upon.endpoint.offer import offer_of
from upon.endpoint.watching import Watching
from upon.endpoint.workers import Workers
from upon.errors import ConfigError
from upon.logs import get_logger
from upon.part import Part
from upon.portions import portions

log = get_logger(__name__)


async def main(part: Part, settings: Settings) -> None:
    """Run tasks until told to stop.

    Raises:
        ConfigError: no dispatcher is known, or it rejects this manager.
    """
    if not settings.dispatcher:
        raise ConfigError("no dispatcher address: set UPON_DISPATCHER=tcp://HOST:PORT, or start one with `upon up`")
    manager = Manager(part, settings)
    stopping: asyncio.Future[object] = asyncio.ensure_future(part.stopping.wait())
    try:
        await asyncio.wait((stopping, manager.over), return_when=asyncio.FIRST_COMPLETED)
        if not manager.over.done() and settings.grace:
            await manager.drain("told to stop", settings.grace)
        if manager.over.done():
            manager.over.result()
    finally:
        stopping.cancel()
        manager.close("told to stop" if part.stopping.is_set() else "its work is over")


class Manager:
    """One node's workers in the service of a dispatcher.

    Attributes:
        over: done when the dispatcher wants this manager to end, or when it cannot go on (with the exception).
    """

    def __init__(self, part: Part, settings: Settings) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.over: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._part, self._settings = part, settings
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger()
        self._pool = Pool(settings.workers, offer=offer_of(settings))
        self._todo: deque[Instruction] = deque()
        self._carrying = self._connected = self._announced = False
        self._outcomes: list[Outcome] = []
        self._deaths: list[Death] = []
        self._begun: list[protocol.Begun] = []
        self._returned: list[Attempt] = []
        self._lacks: set[str] = set()
        self._flushing = False
        self._alarm: asyncio.TimerHandle | None = None
        self._spoken = 0  # the newest version that the dispatcher understands
        self._loop.set_exception_handler(self._on_bug)
        self._links = Links(
            settings.dispatcher,
            curve_folder(settings.places.endpoint(settings.site)),
            self.id,
            connected=self._on_connected,
            received=self._on_message,
        )
        environment = allowed(os.environ, settings.worker_environment)
        environment |= told(settings.store_folder, settings.inline_limit)
        cgroups = settings.places.endpoint(settings.site) / "cgroups"
        self._workers = Workers(self, environment, settings.workers, cgroups)
        self._watching = Watching(
            self._pool,
            self._workers,
            attempt=self._ledger.attempt,
            say=self._say_output,
            exceeded=self.exceeded,
        )
        self._carry(self._pool.start())
        self._heart = self._loop.call_later(BEAT, self._beat)

    async def drain(self, reason: str, seconds: float) -> None:
        """Take nothing more, give back what has not begun, wait for what runs: so long, or until there is nothing.

        A second signal ends the wait.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._end)
        self._start_drain(reason)
        await asyncio.wait({self.over}, timeout=seconds)

    def close(self, reason: str) -> None:
        """Give back what waits, kill what runs and say so; say Bye, and end."""
        self._heart.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        self._watching.close()
        self._carry(self._pool.stop())
        self._carry(self._pool.killed(self._loop.time()))
        self._flush()
        self._links.send(protocol.Bye(reason))
        self._workers.close()
        self._links.close()

    # --------------------------------------------------------------------------------------------- the dispatcher

    def _on_connected(self) -> None:
        self._connected = True
        self._ready()

    def _ready(self) -> None:
        """Report for work, once the workers are up; then send what is not stored."""
        if not (self._connected and self._pool.ready) and not self._announced:
            return
        ready = protocol.Ready(
            manager=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            workers=self._pool.pids,
            slots=0 if self._pool.draining else self._pool.slots,
            python=PYTHON,
            warm=tuple(self._pool.codes),
            held=self._ledger.held(),
            memory=self._pool.leases.offer.memory,
            accelerators=self._pool.leases.offer.accelerators,
        )
        if not self._links.send(ready):
            return
        self._outcomes, self._deaths = self._ledger.owed()
        self._begun = self._pool.begun(self._loop.time())
        self._lacks = set(self._pool.lacking())
        self._flush()
        if not self._announced:
            self._announced = True
            self._part.ready(workers=list(self._pool.pids), dispatcher=self._settings.dispatcher)

    def _on_message(self, message: FromDispatcher) -> None:
        now = self._loop.time()
        match message:
            case protocol.Tasks():
                new, again = self._ledger.take(message.assignments)
                self._outcomes.extend(again)
                self._carry(self._pool.assign(new, now))
            case protocol.Code(code=code):
                self._carry(self._pool.code(Code(code.hash, code.body, code.python), now))
            case protocol.Stored():
                self._ledger.stored(message.attempts)
                self._finish_drain()
            case protocol.Beat():
                self._spoken = message.version
                if message.known:
                    self._ledger.beat()
                    self._finish_drain()
                else:
                    self._ready()
            case protocol.Return():
                self._carry(self._pool.give_back((attempt.id for attempt in message.attempts), now))
            case protocol.Cancel():
                ids, answers = self._ledger.cancel(message.attempts)
                self._outcomes.extend(answers)
                for id in ids:
                    self._carry(self._pool.cancel(id, now, running=message.running))
            case protocol.Stop():
                if message.drain:
                    self._start_drain(f"the dispatcher says so ({message.reason or 'no reason given'})")
                else:
                    self._end()
            case protocol.Reject():
                self.failed(ConfigError(f"the dispatcher will not work with this manager: {message.reason}"))
        self._flush_soon()

    def _start_drain(self, reason: str) -> None:
        log.info("nothing new is taken; what runs goes on to its end", action="drain", reason=reason)
        self._carry(self._pool.drain())
        if self._announced:
            self._ready()
        self._finish_drain()

    def _finish_drain(self) -> None:
        if self._pool.draining and not self._ledger.held():
            self._end()

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def _beat(self) -> None:
        self._heart = self._loop.call_later(BEAT, self._beat)
        if self._announced:
            self._links.beat(protocol.Heartbeat(self._pool.busy, self._pool.pids, self._pool.queued))

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what has gathered while this turn of the loop heard workers."""
        self._flushing = False
        if not self._announced:
            return
        outcomes, self._outcomes = self._outcomes, []
        deaths, self._deaths = self._deaths, []
        begun, self._begun = self._begun, []
        returned, self._returned = self._returned, []
        lacks, self._lacks = self._lacks, set()
        if returned:
            self._links.send(protocol.Returned(tuple(returned)))
        if lacks:
            self._links.send(protocol.Need(tuple(lacks)))
        if begun:
            self._links.send(protocol.Started(tuple(begun)))
        for batch in portions(outcomes, outcome_bytes, BATCH_BYTES):
            self._links.send(protocol.Results(batch))
        if deaths:
            self._links.send(protocol.Lost(tuple(deaths)))

    # ------------------------------------------------------------------------------------------------- the workers

    def forked(self, worker: int, pid: int) -> None:
        self._pool.forked(worker, pid)

    def heard(self, worker: int, messages: list[FromWorker]) -> None:
        self._carry(self._pool.heard(worker, messages, self._loop.time()))
        if not self._announced and self._pool.ready:
            self._ready()

    def exited(self, worker: int, exitcode: int, output: str) -> None:
        seen = self._pool.workers.get(worker)
        if seen is not None and not seen.dying:
            log.info(
                f"worker {seen.pid} {exit_story(exitcode)}; another one starts",
                action="worker_lost",
                task=seen.running.id if seen.running else None,
                output=output[-500:],
            )
        self._carry(self._pool.exited(worker, exitcode, output, self._loop.time()))

    def exceeded(self, worker: int, used: int) -> None:
        seen = self._pool.workers.get(worker)
        if seen is not None and seen.running is not None and seen.running.resources is not None:
            self._carry(self._pool.exceeded(worker, used))

    def stuck(self, worker: int, output: str) -> None:
        seen = self._pool.workers.get(worker)
        if seen is None:
            return
        log.error(
            f"worker {seen.pid} was killed and does not end: it waits in the kernel, perhaps for a file system that "
            "does not answer; another one takes its place",
            action="worker_stuck",
            task=seen.running.id if seen.running else None,
            worker=seen.pid,
        )
        self._carry(self._pool.exited(worker, -signal.SIGKILL, output, self._loop.time()))

    def confused(self, worker: int) -> None:
        self._carry(self._pool.confused(worker))

    def failed(self, error: Exception) -> None:
        if not self.over.done():
            self.over.set_exception(error)

    def _on_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception in a callback: this process ends, and its supervisor starts it anew with right tables."""
        self.failed(context.get("exception") or RuntimeError(context["message"]))

    # -------------------------------------------------------------------------------------------------- the pool

    def _carry(self, instructions: Iterable[Instruction]) -> None:
        """Carry out what the pool decided, first things first: what follows from one comes behind all before it."""
        self._todo.extend(instructions)
        if self._carrying:
            return
        self._carrying = True
        try:
            while self._todo:
                self._do(self._todo.popleft())
        finally:
            self._carrying = False
        self._set_alarm()

    def _do(self, instruction: Instruction) -> None:
        match instruction:
            case Ended(outcome):
                self._outcomes.append(self._ledger.ended(bounded(outcome)))
                self._flush_soon()
            case Give(worker, messages, seqs):
                self._workers.give(worker, messages, seqs)
                self._watching.memory()
            case Reclaim(worker):
                back = self._workers.reclaim(worker)
                self._todo.extend(self._pool.reclaimed(worker, back, self._loop.time()))
            case Kill(worker):
                self._workers.kill(worker)
            case Fork(worker):
                self._workers.fork(worker)
            case Slow(begun):
                attempt = self._ledger.attempt(begun.id, begun.attempt)
                self._begun.append(msgspec.structs.replace(begun, attempt=attempt))
                self._flush_soon()
                self._watching.output()
            case Died(death):
                self._deaths.append(self._ledger.died(death))
                self._flush_soon()
            case Back(assignments):
                self._returned.extend(self._ledger.back(assignments))
                self._flush_soon()
            case Lack(code):
                self._lacks.add(code)
                self._flush_soon()

    def _set_alarm(self) -> None:
        at = self._pool.wake_at
        if at == float("inf") or (self._alarm is not None and self._alarm.when() <= at):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(at, self._tick)

    def _say_output(self, pieces: tuple[protocol.Piece, ...]) -> None:
        if self._announced and self._spoken >= version_of(protocol.Output):
            self._links.send(protocol.Output(pieces))

    def _tick(self) -> None:
        self._alarm = None
        self._carry(self._pool.tick(self._loop.time()))
