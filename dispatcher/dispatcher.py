"""The dispatcher of one site, as a process: Kafka on one side, managers on the other, the state machine between.

    heard    managers' messages and broken connections      ┐
    taken    records, code, cancels, what Kafka has stored   ├─▶ state.handle ─▶ instructions ─▶ carried out
    due      what was waiting for time to pass              ┘
    announce what the site has, to upon.sites

One loop of turns, woken by what happens and by the next deadline; idle, it wakes for heartbeats alone. A turn takes
in all that has arrived, and listens for a few milliseconds at most: whatever the load, what is stored, to be committed
or due has its turn as well. All decisions are in `state`; nothing here decides more than when to say what is said
anyway.

Guarantees: see `state`. While Kafka is away, what is to be written waits. If a reader or writer fails, the part ends
with an error (never silently) and its successor goes on from Kafka. A clean stop (SIGTERM) stores the results it has,
commits, says that the site is down, and leaves managers at their work: they report to the next dispatcher.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from upon.config import Settings
from upon.dispatcher import protocol, wire
from upon.dispatcher.announcer import Announcer
from upon.dispatcher.codes import Codes
from upon.dispatcher.commits import Commits
from upon.dispatcher.decisions.instructions import (
    Commit,
    Input,
    Instruction,
    IntentStored,
    LetterStored,
    ManagerGone,
    Now,
    PastRead,
    Pause,
    PublishIntent,
    PublishLetter,
    PublishOutput,
    PublishResult,
    PublishStarted,
    ResultsStored,
    Resume,
    Send,
    SendCode,
    Tell,
    Tick,
)
from upon.dispatcher.decisions.memo import Memo
from upon.dispatcher.decisions.past import Past
from upon.dispatcher.decisions.state import State
from upon.dispatcher.feeds import LOOK_BACK, POLL_RECORDS, control_input, invocation_input
from upon.dispatcher.hearing import hear
from upon.dispatcher.publisher import Publisher
from upon.dispatcher.recovery import horizon, past_of
from upon.dispatcher.router import Router
from upon.dispatcher.standby import Candidate, myself
from upon.dispatcher.tenure import Term
from upon.kafka.follow import follow
from upon.kafka.outbox import Outbox
from upon.kafka.reader import Reader
from upon.logs import get_logger
from upon.messages import FunctionCode
from upon.part import Part

log = get_logger(__name__)

STOP_PATIENCE = 1.5
"""Seconds that a clean stop waits for Kafka to take what there is, and then for its clients to close."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What a dispatcher has, active or not.

    Attributes:
        router, wake: the open socket, and what it sets when there may be something to read.
        outbox: started.
        candidate: knows whose the site is.
        watching: done, with an exception, when outbox or candidate cannot go on.
    """

    settings: Settings
    router: Router
    wake: asyncio.Event
    outbox: Outbox
    candidate: Candidate
    watching: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class Found:
    """What a dispatcher has found when its site became its own.

    Attributes:
        reader: reads the invocations of the site, from where an earlier dispatcher had committed.
        past: what is known of the site's work before.
        said: what managers have said already.
        wait: whether there is work that an earlier dispatcher may have begun, and that managers may still claim.
    """

    reader: Reader
    past: Past
    said: Sequence[Input]
    wait: bool


class Dispatcher:
    """The loop and what it holds: socket, publisher, readers, state machine.

    Args:
        seat: open.
        term: its own, which has begun.
        found: what there was.
    """

    def __init__(self, seat: Seat, term: Term, found: Found) -> None:
        self._seat, self._term, self._found = seat, term, found
        self._settings, self._topics, self._site = seat.settings, seat.settings.topics, seat.settings.site
        self._router, self._wake, self._reader = seat.router, seat.wake, found.reader
        self._inbox: deque[Input] = deque(found.said)
        self._publisher = Publisher(seat.outbox, self._topics, self._site, lambda ids: self._put(ResultsStored(ids)))
        self._codes = Codes(self._put, self._send_body)
        self._lacking: dict[str, dict[str, None]] = {}  # code → managers that wait for its body to be read
        settings = seat.settings
        self._state = State(
            past=found.past,
            session=term.session,
            closed=term.closed,
            timeout=settings.task_timeout,
            memo=Memo(settings.memo_entries, settings.memo_bytes, settings.memo_age),
        )
        offsets = self._state.book.offsets
        for one, at in found.reader.positions.items():
            if at.beyond is not None:
                offsets.resume(one.partition, at.beyond)
        self._commits = Commits(found.reader, self._topics.invocations(self._site), offsets)
        self._announcer = Announcer(myself(self._site, term), self._state, self._publisher, self._wake.set)
        self._taken = asyncio.Event()
        self._failed: BaseException | None = None

    async def run(self, part: Part) -> None:
        """Do the work until the part is told to stop, or another dispatcher takes over.

        Raises whatever ended a reader or the publisher.
        """
        kafka = self._settings.need_kafka()
        registry_read, control_read = asyncio.Event(), asyncio.Event()
        since = max(1, int((time.time() - LOOK_BACK) * 1000))
        client, topics = f"upon-dispatcher-{self._site}", self._topics
        tasks = [
            asyncio.create_task(
                follow(
                    kafka,
                    f"{client}-registry",
                    [topics.registry],
                    self._codes.take,
                    caught_up=registry_read,
                    spec_of=self._settings.spec_of,
                )
            ),
            asyncio.create_task(
                follow(
                    kafka,
                    f"{client}-control",
                    [topics.control(self._site)],
                    self._take_control,
                    caught_up=control_read,
                    since=since,
                    spec_of=self._settings.spec_of,
                )
            ),
            asyncio.create_task(self._codes.read_bodies(kafka, f"{client}-bodies", topics.registry)),
            asyncio.create_task(self._read_past(kafka)),
            asyncio.create_task(self._watch_stopping(part)),
        ]
        for task in (*tasks, self._seat.watching):
            task.add_done_callback(self._ended)
        self._listen_to_signals()
        self._seat.candidate.on_change = self._wake.set
        try:
            await self._unless_failed(asyncio.gather(registry_read.wait(), control_read.wait()))
            if self._found.wait:
                self._state.placement.hold_until = time.monotonic() + protocol.HEARD_WITHIN
            taking = asyncio.create_task(self._read_invocations())
            taking.add_done_callback(self._ended)
            tasks.append(taking)
            part.ready(dispatcher=self._router.address, site=self._site)
            await self._loop(part)
            if (other := self._seat.candidate.superseded(self._term)) is not None:
                log.warning(
                    f"the dispatcher of {other.host} (pid {other.pid}) has taken over this site: this one stands by",
                    action="superseded",
                    epoch=other.epoch,
                )
            else:
                await self._stop(taking)
        finally:
            self._seat.watching.remove_done_callback(self._ended)
            self._commits.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _loop(self, part: Part) -> None:
        while not part.stopping.is_set() and not self._seat.candidate.superseded(self._term):
            self._turn(chain(hear(self._router, self._term), self._taken_in(), self._due()))
            self._announcer.announce()
            await self._sleep()
            if self._failed is not None:
                raise self._failed

    # ------------------------------------------------------------------------------- the steps of the loop

    def _turn(self, inputs: Iterable[Input]) -> None:
        """One turn of the state machine, and what it says is to be done."""
        inputs = list(inputs)
        if inputs:
            for instruction in self._state.handle(inputs, Now(time.monotonic(), time.time_ns())):
                self._carry_out(instruction)

    def _taken_in(self) -> Iterator[Input]:
        """What came from Kafka."""
        for _ in range(len(self._inbox)):
            yield self._inbox.popleft()
        self._taken.set()

    def _due(self) -> Iterator[Input]:
        deadline = self._state.deadline()
        if deadline is not None and deadline <= time.monotonic():
            yield Tick()

    async def _sleep(self) -> None:
        """Until something happens, or the next deadline."""
        if self._inbox or self._router.pending():
            await asyncio.sleep(0)
            return
        times = [self._announcer.deadline()]
        if (deadline := self._state.deadline()) is not None:
            times.append(deadline)
        alarm = asyncio.get_running_loop().call_at(min(times), self._wake.set)
        await self._wake.wait()
        self._wake.clear()
        alarm.cancel()

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Send(manager, message):
                self._say(manager, message)
            case SendCode(manager, code):
                self._send_code(manager, code)
            case PublishResult(result):
                self._publisher.result(result)
            case PublishStarted(started):
                self._publisher.started(started)
            case PublishOutput(piece):
                self._publisher.output(piece)
            case PublishIntent(attempt, started):
                self._publisher.intent(started, partial(self._put, IntentStored(started.id, attempt)))
            case PublishLetter():
                self._write_letter(instruction)
            case Commit(offsets):
                self._commits.put(offsets)
            case Pause():
                self._reader.pause()
                log.info("the backlog is full; no more invocations are read", action="pause")
            case Resume():
                self._reader.resume()
                log.info("invocations are read again", action="resume")
            case Tell(level, sentence, action, ids):
                (log.warning if level == "warning" else log.info)(sentence, action=action, **ids)

    def _send_code(self, manager: str, code: str) -> None:
        """Send a body; one that is to be read first comes behind its tasks, which wait for it at the manager."""
        body = self._codes.want(code)
        if body is None:
            self._lacking.setdefault(code, {})[manager] = None
        else:
            self._say(manager, protocol.Code(body))

    def _send_body(self, code: FunctionCode) -> None:
        for manager in self._lacking.pop(code.hash, ()):
            self._say(manager, protocol.Code(code))

    def _say(self, manager: str, message: protocol.FromDispatcher) -> None:
        if not self._router.send(manager, wire.pack(message, self._term.epoch)):
            self._put(ManagerGone(manager, "could not be reached"))

    # ------------------------------------------------------------------------------------- beside the loop

    def _put(self, event: Input) -> None:
        """Let the loop take this in next."""
        self._inbox.append(event)
        self._wake.set()

    def _take_control(self, record: Any) -> None:
        if (asked := control_input(record)) is not None:
            self._put(asked)

    async def _read_past(self, kafka: str) -> None:
        self._put(PastRead(await past_of(kafka, self._topics.results, self._site, horizon())))

    async def _read_invocations(self) -> None:
        offsets = self._state.book.offsets
        while True:
            batches = await self._reader.next(max_records=POLL_RECORDS)
            now = time.time_ns()
            for records in batches:
                for record in records:
                    if not offsets.was_settled(record.partition, record.offset):
                        self._put(invocation_input(record, self._site, now))
            if batches:  # what was read is taken in before more is, so that Pause is in time
                self._taken.clear()
                self._wake.set()
                await self._taken.wait()

    def _write_letter(self, instruction: PublishLetter) -> None:
        letter = instruction.letter
        log.warning(f"a record is no invocation: {letter.reason}", action="deadletter", origin=letter.origin)
        stored = LetterStored(instruction.partition, instruction.offset)
        self._publisher.letter(letter, lambda: self._put(stored))

    def _listen_to_signals(self) -> None:
        """SIGUSR1: start nothing more (`upon down --drain`); SIGUSR2: go on."""

        def drain(on: bool) -> None:
            log.info("nothing new is started" if on else "tasks are started again", action="drain")
            self._state.drain(on)
            self._put(Tick())

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, drain, True)
        loop.add_signal_handler(signal.SIGUSR2, drain, False)

    async def _watch_stopping(self, part: Part) -> None:
        await part.stopping.wait()
        self._wake.set()

    def _ended(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed = self._failed or error
            self._wake.set()

    async def _unless_failed(self, waiting: asyncio.Future[Any]) -> None:
        """Wait for this, or raise what has ended a reader."""
        while not waiting.done():
            waking = asyncio.ensure_future(self._wake.wait())
            await asyncio.wait({waiting, waking}, return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            self._wake.clear()
            if self._failed is not None:
                waiting.cancel()
                raise self._failed

    async def _stop(self, reading: asyncio.Task[None]) -> None:
        """A clean end: store what there is, commit, say that the site is down."""
        reading.cancel()
        self._turn(hear(self._router, self._term))
        try:
            async with asyncio.timeout(STOP_PATIENCE):
                await self._publisher.drained(STOP_PATIENCE)
                self._turn(self._taken_in())
                await self._commits.flush()
                await self._announcer.down()
        except TimeoutError:
            log.warning("Kafka did not answer in time; the next dispatcher goes on from what it has", action="stop")
