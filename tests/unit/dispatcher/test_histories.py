"""Generated histories: whatever arrives, is lost, comes late or twice, each id has exactly one result.

Managers are simulated as the protocol says they behave: they hold what they were given until it ends, keep outcomes
until these are Stored, forget nothing when their connection breaks, and die with all they hold. Kafka stores
published results in any order. What happens is taken in in turns of one input or of several. A dispatcher may be
killed at any time and be followed by one that knows only what is in Kafka; it then reads on from the committed
offsets, and of the results only what was written since the first open record, the rest at any later time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from upon.dispatcher import protocol
from upon.dispatcher.decisions.instructions import (
    CancelAsked,
    CodeGone,
    CodeKnown,
    Commit,
    Heard,
    Input,
    IntentStored,
    ManagerGone,
    Now,
    PastRead,
    Pause,
    PublishIntent,
    PublishResult,
    PublishStarted,
    RecordRead,
    ResultsStored,
    Resume,
    Send,
    SendCode,
    Tick,
)
from upon.dispatcher.decisions.memo import Memo
from upon.dispatcher.decisions.past import Past
from upon.dispatcher.decisions.state import State
from upon.dispatcher.protocol import Attempt, Outcome
from upon.kafka.positions import Position, committed_position
from upon.messages import (
    FINAL,
    Cause,
    Failure,
    Invocation,
    InvocationBatch,
    Resources,
    Result,
    ResultBatch,
    Retry,
    Started,
    encode,
)

CODES = ["c0", "c1"]
RETRIES = [
    Retry(jitter=False),
    Retry(attempts=1, jitter=False),
    Retry(attempts=3, on=("ValueError", "WorkerLost"), initial=1.0),
]


def retry_of(id: str) -> Retry:
    return RETRIES[int(id[1:]) % len(RETRIES)]


NEEDS: list[dict[str, Any]] = [
    {},
    {},
    {"resources": Resources(cores=2)},
    {"resources": Resources(accelerators=1), "priority": 1},
    {"limits": {"beam": 1}},
    {"resources": Resources(cores=2, memory=3), "limits": {"beam": 2}},
    {"priority": -1},
    {"memoize": True},
    {"memoize": True},
]


def needs_of(id: str) -> dict[str, Any]:
    return NEEDS[int(id[1:]) % len(NEEDS)]


BAD = Failure(type="ValueError", message="bad", kinds=("ValueError", "Exception"))


@dataclass
class Peer:
    """A manager as it behaves."""

    id: str
    slots: int
    known: bool = False  # the dispatcher counts on it
    connected: bool = True
    holds: dict[tuple[str, int], str] = field(default_factory=dict)  # attempt → code
    outcomes: dict[tuple[str, int], Outcome] = field(default_factory=dict)  # not Stored yet
    begun: set[tuple[str, int]] = field(default_factory=set)  # attempts said to run
    codes: set[str] = field(default_factory=set)
    lacks: set[str] = field(default_factory=set)  # codes it has said that it needs


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.mono = 1000.0
        self.skew = 0  # ns: the wall clock, against the one that does not jump
        self.log: list[list[RecordRead]] = [[], []]  # the invocations topic: records of two partitions
        self.read = [0, 0]
        self.committed = [0, 0]
        self.positions = [Position(0, 0), Position(0, 0)]  # the same, and what is settled beyond
        self.clock = 1  # the broker's
        self.recorded: list[list[int]] = [[], []]  # when the records of the invocations were written
        self.events: dict[str, int] = {}  # when each id was asked for first
        self.results: list[tuple[int, bytes]] = []  # the results topic: when, and what
        self.intents: list[tuple[int, Started]] = []  # attempts and starts that are on their way there
        self.starts: dict[str, int] = {}  # of each id, how often it began
        self.kafka: dict[str, Result] = {}  # stored results
        self.published: dict[str, Result] = {}  # by this dispatcher
        self.unstored: list[Result] = []
        self.codes: set[str] = set()
        self.peers: dict[str, Peer] = {}
        self.count = 0
        self.paused = False
        self.inbox: list[Input] = []
        self.at_once = 1  # inputs of a turn
        self.in_turn = False
        self.start()

    def start(self) -> None:
        """A new dispatcher, which knows what is in Kafka."""
        open_ = [times[at] for times, at in zip(self.recorded, self.committed, strict=True) if at < len(times)]
        self.state = State(
            past=self.past(min(open_, default=self.clock)),
            session=f"s{self.mono}",
            max_tasks=12,
            random=lambda: 1.0,
            memo=Memo(2, 1000),
        )
        self.published, self.unstored, self.paused = {}, [], False
        self.read = list(self.committed)
        self.inbox = []
        for partition, at in enumerate(self.positions):
            if at.beyond is not None:
                self.state.book.offsets.resume(partition, at.beyond)
        self.told: set[str] = set()  # codes that the dispatcher knows of
        for code in self.codes:
            self.do(CodeKnown(code))

    def past(self, since: int) -> Past:
        past = Past(since)
        for at, value in self.results:
            if at >= since:
                past.take(value, "s")
        return past

    # ------------------------------------------------------------------------------------------ the shell

    def do(self, event: Input) -> None:
        self.inbox.append(event)
        if not self.in_turn and len(self.inbox) >= self.at_once:
            self.flush()

    def flush(self) -> None:
        while self.inbox:
            inputs, self.inbox = self.inbox, []
            self.in_turn = True
            self.turn(inputs)
            self.in_turn = False

    def turn(self, inputs: list[Input]) -> None:
        self.told |= {event.hash for event in inputs if isinstance(event, CodeKnown)}
        starts = {id: task.starts for id, task in self.state.book.tasks.items()}
        waiting = self.order()
        for said in self.state.handle(inputs, Now(self.mono, int(self.mono * 1e9) + self.skew)):
            self.carry_out(said)
        for event in inputs:
            match event:
                case CodeKnown(hash=code):
                    self.told.add(code)
                case CodeGone(hash=code):
                    self.told.discard(code)
        self.state.check_invariants()
        ready = {task.id: task for task in self.state.book.ready}
        retries = [id for id, task in ready.items() if task.starts > starts.get(id, 0)]
        order = self.order() if retries else []
        for retry in retries:  # a retry overtakes nobody, but for those of lower priority
            least = ready[retry].invocation.priority
            others = [id for id in waiting if id in ready and ready[id].invocation.priority >= least]
            behind = [id for id in others if order.index(id) > order.index(retry)]
            assert not behind, f"{retries} went in front of {behind}"

    def order(self) -> list[str]:
        """What waits, in its order (all is of one group)."""
        return [task.id for task in sorted(self.state.book.ready, key=lambda task: task.order)]

    def carry_out(self, said: Any) -> None:
        match said:
            case PublishResult(result):
                assert result.status in FINAL
                assert result.id not in self.published, f"two results of {result.id}"
                assert result.id not in self.kafka, f"{result.id} was done, and done again"
                self.published[result.id] = result
                self.unstored.append(result)
            case Commit(offsets):
                for partition, offset in offsets.items():
                    assert offset >= self.committed[partition], "commits go forward"
                    for record in self.log[partition][:offset]:
                        for invocation in record.batch.invocations:
                            assert invocation.id in self.kafka, f"{invocation.id} is committed and has no result"
                    self.committed[partition] = offset
                    at = Position(offset, 0, self.state.book.offsets.beyond(partition, 0))
                    self.positions[partition] = committed_position(offset, at.metadata())
            case PublishStarted(started):
                self.write(started=(started,))
            case PublishIntent(attempt, started):
                self.intents.append((attempt, started))
            case SendCode(manager, code):
                assert code in self.told
                if manager in self.peers and self.peers[manager].connected:
                    self.peers[manager].codes.add(code)
                    self.peers[manager].lacks.discard(code)
            case Send(manager, message) if manager in self.peers:
                self.to_peer(self.peers[manager], message)
            case Pause():
                self.paused = True
            case Resume():
                self.paused = False

    def write(self, **what: Any) -> None:
        self.clock += 1
        self.results.append((self.clock, encode(ResultBatch(site="s", **what))))

    def begins(self, id: str) -> None:
        self.starts[id] = self.starts.get(id, 0) + 1
        assert retry_of(id).attempts > 1 or self.starts[id] == 1, f"{id} may start once, and does again"

    def to_peer(self, peer: Peer, message: protocol.FromDispatcher) -> None:
        if not peer.connected:
            return
        match message:
            case protocol.Return():
                self.gives_back(peer, [(id, attempt) for id, attempt in message.attempts])
            case protocol.Tasks():
                for task in message.assignments:
                    key = (task.id, task.attempt)
                    assert task.code in peer.codes | peer.lacks, "a task came before its code"
                    assert key not in peer.holds, f"{key} was given twice"
                    assert task.id not in self.kafka, f"{task.id} is done and was given to {peer.id}"
                    peer.holds[key] = task.code
                if not peer.slots:  # it drains, and this was on its way
                    self.gives_back(peer, [(task.id, task.attempt) for task in message.assignments])
            case protocol.Cancel():
                for attempt in message.attempts:
                    key = (attempt.id, attempt.attempt)
                    if key in peer.holds and (message.running or key not in peer.begun):
                        del peer.holds[key]
                        peer.outcomes[key] = Outcome(*key, "cancelled")
            case protocol.Stored():
                for attempt in message.attempts:
                    peer.outcomes.pop((attempt.id, attempt.attempt), None)
            case protocol.Beat(known=known):
                peer.known = known
                if not known:
                    self.say_ready(peer)

    # -------------------------------------------------------------------------------------------- arrivals

    @rule(
        partition=st.integers(0, 1),
        ids=st.lists(st.integers(0, 30), min_size=0, max_size=4),
        code=st.sampled_from(CODES),
    )
    def arrive(self, partition: int, ids: list[int], code: str) -> None:
        """A record is written; ids come again now and then."""
        invocations = tuple(
            Invocation(
                id=id, code=code, function="f", payload=b"p", retry=retry_of(id), cause=self.cause(id), **needs_of(id)
            )
            for id in (f"i{n}" for n in ids)
        )
        self.clock += 1
        self.recorded[partition].append(self.clock)
        batch = InvocationBatch(site="s", group="g", invocations=invocations)
        self.log[partition].append(RecordRead(partition, len(self.log[partition]), batch))

    def cause(self, id: str) -> Cause:
        at = self.events.setdefault(id, self.clock)
        return Cause(rule="r", rule_revision=1, event_id=id, event_type="t", event_source="/s", event_recorded=at)

    @rule()
    def the_past_is_read(self) -> None:
        self.do(PastRead(self.past(0)))

    @precondition(lambda self: self.intents)
    @rule(data=st.data())
    def an_intent_is_stored(self, data: st.DataObject) -> None:
        attempt, started = self.intents.pop(data.draw(st.integers(0, len(self.intents) - 1)))
        self.write(started=(started,))
        self.do(IntentStored(started.id, attempt))

    @rule(partition=st.integers(0, 1))
    def fetch(self, partition: int) -> None:
        if not self.paused and self.read[partition] < len(self.log[partition]):
            self.read[partition] += 1
            self.do(self.log[partition][self.read[partition] - 1])

    @rule(code=st.sampled_from(CODES))
    def code(self, code: str) -> None:
        self.codes.add(code)
        self.do(CodeKnown(code))

    @rule(code=st.sampled_from(CODES))
    def code_goes(self, code: str) -> None:
        self.codes.discard(code)
        self.do(CodeGone(code))

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), code=st.sampled_from(CODES))
    def manager_lacks_code(self, data: st.DataObject, code: str) -> None:
        """It had dropped the body, and the dispatcher gives it again, or takes back what cannot begin."""
        peer = self.peers[data.draw(st.sampled_from(sorted(self.peers)))]
        if peer.connected:
            peer.codes.discard(code)
            peer.lacks.add(code)
            self.say(peer, protocol.Need((code,)))

    @rule(count=st.sampled_from([1, 1, 3, 8]))
    def turns(self, count: int) -> None:
        """From now on so many inputs are taken in together."""
        self.at_once = count
        self.do(Tick())

    @rule(number=st.integers(0, 30), running=st.booleans())
    def cancel(self, number: int, running: bool) -> None:
        self.do(CancelAsked((f"i{number}",), running))

    @precondition(lambda self: self.unstored)
    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        stored = data.draw(st.lists(st.sampled_from(self.unstored), min_size=1, max_size=3, unique_by=lambda r: r.id))
        self.settle(stored)

    def settle(self, stored: list[Result]) -> None:
        for result in stored:
            self.unstored.remove(result)
            self.kafka[result.id] = result
            self.write(results=(result,))
        self.do(ResultsStored(tuple(result.id for result in stored)))

    @rule(seconds=st.sampled_from([0.5, 1.0, 16.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; managers that are connected beat in between, those that are not do not."""
        end = self.mono + seconds
        while self.mono < end:
            self.mono = min(end, self.mono + 1.0)
            for peer in list(self.peers.values()):
                if peer.connected:
                    self.say(peer, protocol.Heartbeat(len(peer.holds)))
            self.do(Tick())

    @rule(hours=st.sampled_from([-48, -1, 1, 48]))
    def wall_clock_jumps(self, hours: int) -> None:
        self.skew += hours * 3_600_000_000_000

    # -------------------------------------------------------------------------------------------- managers

    def say(self, peer: Peer, message: protocol.FromManager) -> None:
        if peer.connected:
            self.do(Heard(peer.id, message))

    def gives_back(self, peer: Peer, keys: list[tuple[str, int]]) -> None:
        back = [key for key in keys if key in peer.holds and key not in peer.begun]
        for key in back:
            del peer.holds[key]
        self.say(peer, protocol.Returned(tuple(Attempt(*key) for key in back)))

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def manager_drains(self, data: st.DataObject) -> None:
        """It takes nothing more; the dispatcher hears of it now, or when it is connected again."""
        peer = self.peers[data.draw(st.sampled_from(sorted(self.peers)))]
        peer.slots = 0
        if peer.connected:
            self.say_ready(peer)  # first, or it would be given again what it gives back
            self.gives_back(peer, list(peer.holds))

    def say_ready(self, peer: Peer) -> None:
        held = tuple(Attempt(*key) for key in [*peer.holds, *peer.outcomes])
        accelerators = ("0",) * (peer.slots - 1)
        ready = protocol.Ready(
            peer.id, "h", 1, (1,), peer.slots, "3.11", tuple(peer.codes), held, memory=4, accelerators=accelerators
        )
        self.say(peer, ready)
        for outcome in list(peer.outcomes.values()):
            self.say(peer, protocol.Results((outcome,)))

    @precondition(lambda self: len(self.peers) < 3)
    @rule(slots=st.integers(1, 2))
    def manager_comes(self, slots: int) -> None:
        self.count += 1
        peer = self.peers[f"m{self.count}"] = Peer(f"m{self.count}", slots)
        self.say_ready(peer)

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), clean=st.booleans())
    def manager_dies(self, data: st.DataObject, clean: bool) -> None:
        peer = self.peers[data.draw(st.sampled_from(sorted(self.peers)))]
        if clean and peer.connected:
            self.gives_back(peer, list(peer.holds))
            deaths = tuple(protocol.Death(*key, "stopped", 7, -9, 5, 6, False) for key in peer.holds)
            self.say(peer, protocol.Lost(deaths))
            self.say(peer, protocol.Bye("stopped"))
        peer.holds.clear()
        self.do(ManagerGone(peer.id, "its connection broke"))
        del self.peers[peer.id]

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def connection_breaks_or_heals(self, data: st.DataObject) -> None:
        """It stays alive and holds what it holds; when it is back it hears that it is not known, and says Ready."""
        peer = self.peers[data.draw(st.sampled_from(sorted(self.peers)))]
        peer.connected = not peer.connected
        if peer.connected:
            self.beat(peer)
        elif data.draw(st.booleans()):  # else it is found out by silence
            self.do(ManagerGone(peer.id, "its connection broke"))

    def beat(self, peer: Peer) -> None:
        self.do(ManagerGone(peer.id, "its connection broke"))  # as the router sees a new descriptor
        self.say(peer, protocol.Heartbeat(len(peer.holds)))

    def pick(self, data: st.DataObject) -> tuple[Peer, tuple[str, int]] | None:
        choices = [(peer, key) for peer in self.peers.values() for key in peer.holds]
        return data.draw(st.sampled_from(choices)) if choices else None

    @rule(data=st.data())
    def task_starts(self, data: st.DataObject) -> None:
        if picked := self.pick(data):
            if picked[1] not in picked[0].begun:
                self.begins(picked[1][0])
            picked[0].begun.add(picked[1])
            self.say(picked[0], protocol.Started((protocol.Begun(*picked[1], 5, 7),)))

    @rule(data=st.data(), failed=st.booleans())
    def task_ends(self, data: st.DataObject, failed: bool) -> None:
        if picked := self.pick(data):
            peer, key = picked
            if key not in peer.begun:
                self.begins(key[0])
            del peer.holds[key]
            outcome = Outcome(*key, "failed", failure=BAD) if failed else Outcome(*key, "succeeded", b"m\x01")
            peer.outcomes[key] = outcome
            self.say(peer, protocol.Results((outcome,)))

    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        if picked := self.pick(data):
            peer, key = picked
            if peer.connected:  # a death is told once; not told, the manager no longer holds the task
                if key not in peer.begun:
                    self.begins(key[0])
                del peer.holds[key]
                self.say(peer, protocol.Lost((protocol.Death(*key, "killed", 7, -9, 5, 6),)))

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def an_outcome_is_told_again(self, data: st.DataObject) -> None:
        outcomes = [(peer, outcome) for peer in self.peers.values() for outcome in peer.outcomes.values()]
        if outcomes:
            peer, outcome = data.draw(st.sampled_from(outcomes))
            self.say(peer, protocol.Results((outcome,)))

    @rule(written=st.booleans())
    def dispatcher_is_killed(self, written: bool) -> None:
        for _, started in self.intents if written else []:  # and it did not hear of it
            self.write(started=(started,))
        self.intents = []
        self.start()
        for peer in self.peers.values():
            peer.known = False
            if peer.connected:
                self.say_ready(peer)

    # -------------------------------------------------------------------------------- what is always true

    @invariant()
    def nothing_is_committed_without_a_result(self) -> None:
        for partition, position in enumerate(self.positions):
            for record in self.log[partition]:
                beyond = position.beyond
                if record.offset >= position.offset and not (beyond and beyond.settled(record.offset)):
                    continue
                assert all(invocation.id in self.kafka for invocation in record.batch.invocations)

    @invariant()
    def a_manager_is_not_overcommitted(self) -> None:
        for manager in self.state.book.managers.values():
            assert all(task.manager == manager.id for task in manager.tasks.values())

    def teardown(self) -> None:
        """In the end, with code, time and one good manager, everything has its result and is committed."""
        self.at_once = 1
        self.flush()
        for code in CODES:
            self.code(code)
        for peer in list(self.peers.values()):
            self.do(ManagerGone(peer.id, "its connection broke"))
        self.peers = {}
        peer = self.peers["good"] = Peer("good", 4)
        self.say_ready(peer)
        self.the_past_is_read()
        for _ in range(400):
            while self.intents:
                attempt, started = self.intents.pop()
                self.write(started=(started,))
                self.do(IntentStored(started.id, attempt))
            for partition in (0, 1):
                self.fetch(partition)
            for key in list(peer.holds):
                self.begins(key[0])
                del peer.holds[key]
                outcome = peer.outcomes[key] = Outcome(*key, "succeeded", b"m\x01")
                self.say(peer, protocol.Results((outcome,)))
            self.settle(list(self.unstored))
            self.wait(1.0)
            if self.committed == [len(log) for log in self.log]:
                break
        asked = {i.id for log in self.log for record in log for i in record.batch.invocations}
        assert set(self.kafka) == asked, "not every invocation has a result"
        assert self.committed == [len(log) for log in self.log]
        assert not self.state.book.tasks
        assert not peer.outcomes, "a manager was not told that its outcomes are stored"


Histories.TestCase.settings = settings(
    max_examples=120,
    report_multiple_bugs=False,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestHistories = Histories.TestCase
