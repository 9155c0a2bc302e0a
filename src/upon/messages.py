"""What travels in Kafka between the parts, apart from events: one struct per record, in MessagePack.

    upon.invocations.<site>   InvocationBatch
    upon.control.<site>       Cancel | Drain
    upon.results              ResultBatch
    upon.output               OutputBatch, of `upon.printed`
    upon.registry             FunctionCode | FunctionRecord | RuleRevision | RuleActivations    (key: `registry_key`)
    upon.sites                SiteStatus
    upon.choices              SiteChoices
    upon.deadletter           DeadLetter | Resolved

Guarantees: a field is never renamed or reused, and a new one has a default: old records stay readable. A record's
`format` (absent = 1) rises only when older readers must refuse it. Times are ns since the epoch, durations seconds.

Not here: events (`upon.events`), the service's requests (`upon.api`), ZeroMQ's frames (`upon.dispatcher.protocol`).
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from upon.errors import InputError

FORMAT = 1
"""The newest record format this code reads."""
MAX_RECORD = 16 * 1024 * 1024
"""Bytes: the largest Kafka record, set alike at topics, producers and consumers."""
MAX_PAYLOAD = MAX_RECORD - 64 * 1024
"""Bytes: the largest arguments or result in a record, the rest of which is for what describes them."""
MAX_DESCRIPTION = 32 * 1024
"""Bytes: what an invocation may have beside its payload (names, retry, cause), so that its result has room for it."""
COALESCE_BYTES = 1024 * 1024
"""Bytes: whoever gathers invocations or results into a batch starts a new one past this."""
CODE_KEY = b"code/"
"""What the keys of the registry's records of code begin with."""

Status = Literal["pending", "running", "succeeded", "failed", "cancelled"]
FINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all records: immutable, keyword-only, defaults left out on the wire."""


class Retry(Message, frozen=True, kw_only=True):
    """When a failed attempt is tried again. The default covers lost workers only, at once."""

    attempts: int = 3  # how often the task may start in all, ≥ 1
    on: tuple[str, ...] = ("WorkerLost",)  # names of exception classes (base classes count)
    initial: float = 0.0  # s before the second attempt
    factor: float = 2.0  # each further wait is this much longer
    max: float = 300.0  # s, the longest wait
    jitter: bool = True  # wait a random part (half to whole) of it


class Cause(Message, frozen=True, kw_only=True):
    """What made a rule fire, and the chain of rules and events that led there."""

    rule: str
    rule_revision: int
    event_id: str
    event_type: str
    event_source: str
    event_subject: str = ""
    event_time: int = 0  # the event's own time attribute; 0 also when it is before 1678 or after 2262
    event_recorded: int = 0  # when Kafka had the event
    action: str = "run"  # which of the rule's actions; a name within the rule
    epoch: int = 1  # of the rule: raised when somebody asks that it fires again for what it has fired for
    root: str = ""  # id of the event with which the chain began; empty: this event
    chain: dict[str, int] = {}  # rule → how often it fired in the chain, this firing included; empty: this one alone

    @property
    def depth(self) -> int:
        """How many firings the chain has, this one included."""
        return sum(self.chain.values()) or 1


class Resources(Message, frozen=True, kw_only=True):
    """What a task has for itself while it runs. The default is a worker and a core."""

    cores: int = 1  # ≥ 1; as many of its manager's slots
    memory: int = 0  # bytes, for it and all that it starts; 0 = not named and not bounded
    accelerators: int = 0  # GPUs and the like; the task sees these alone


class Invocation(Message, frozen=True, kw_only=True):
    """One request to run a function at a site."""

    id: str  # UUID; equal ids are the same work, done once
    code: str  # content hash of the function, `FunctionCode.hash`; empty on the way to the service: it looks it up
    function: str  # its name, for people and policy; without code: name[@version] of a registered one
    version: int = 0  # its version; 0 = anonymous (submitted by an Executor)
    payload: bytes = b""  # `upon.serialize.pack_call` or `pack_chunk`, or a reference to that in a store
    items: int = 0  # 0 = one call; n = a map chunk of n calls
    timeout: float = 0.0  # s for one attempt; 0 = none
    retry: Retry = Retry()
    cause: Cause | None = None  # the rule and event, when a rule fired it
    resources: Resources | None = None  # None: the default
    priority: int = 0  # among the tasks of one group, rule or caller: higher goes first
    limits: dict[str, int] = {}  # name → how many tasks that name it may be at a site's managers at once
    memoize: bool = False  # the result of the same call may be given instead


class InvocationBatch(Message, frozen=True, kw_only=True):
    """Invocations that travel in one record, for one site."""

    format: int = 1
    site: str
    group: str = ""  # who waits for the results (an Executor's id); also the key of their record
    principal: str = ""  # who asked: user or service
    submitted: int = 0  # when the service or stream worker accepted them
    invocations: tuple[Invocation, ...]


class Cancel(Message, frozen=True, kw_only=True):
    """Stop these invocations, queued or running."""

    format: int = 1
    ids: tuple[str, ...]
    running: bool = True  # False: those that have begun are left alone


class Drain(Message, frozen=True, kw_only=True, tag="drain"):
    """Start nothing more at a site, or have some of its managers end when they have nothing left that runs."""

    format: int = 1
    managers: tuple[str, ...] = ()  # ids; empty: the site itself
    on: bool = True  # False: the site starts tasks again
    principal: str = ""


class Timings(Message, frozen=True, kw_only=True):
    """When an invocation passed each hop. `t_x` of the funcX paper are differences of these."""

    submitted: int = 0  # accepted by the service, or fired by a stream worker
    received: int = 0  # read from Kafka by the dispatcher
    dispatched: int = 0  # sent to a manager (last attempt)
    started: int = 0  # the function began (last attempt)
    finished: int = 0  # the function ended
    returned: int = 0  # the dispatcher had the result


class Failure(Message, frozen=True, kw_only=True):
    """An exception as it travels."""

    type: str  # class name, such as ``ValueError`` or ``WorkerLost``
    message: str
    traceback: str = ""  # the worker's, as text; for a lost worker: the story
    kinds: tuple[str, ...] = ()  # class names along the MRO, what `Retry.on` is matched with
    payload: bytes = b""  # the exception itself, `upon.serialize.dumps`; empty if it cannot be rebuilt
    unbuilt: str = ""  # why not


class ItemFailure(Message, frozen=True, kw_only=True):
    """One bad item of a map chunk; the others are in the result."""

    index: int
    failure: Failure


class Result(Message, frozen=True, kw_only=True):
    """The outcome of one invocation."""

    id: str
    status: Status  # a final one
    code: str = ""
    function: str = ""
    version: int = 0
    payload: bytes = b""  # `upon.serialize.dumps` of the value (a map chunk's: the list of values), or a reference
    items: int = 0  # as in the invocation
    bad_items: tuple[ItemFailure, ...] = ()
    failure: Failure | None = None  # when failed or cancelled
    preview: str = ""  # repr of the value, shortened, for people
    stdout: str = ""  # the end of what the function printed
    attempts: int = 1
    worker: str = ""  # manager/pid that ran the last attempt
    group: str = ""  # as in the batch
    timings: Timings = Timings()
    cause: Cause | None = None


class Started(Message, frozen=True, kw_only=True):
    """An invocation that has begun and is not done yet: sent for those that take a while, or are tried again."""

    id: str
    started: int  # 0 = it may begin from now on: said before what may start once is given to a manager
    attempt: int = 1
    worker: str = ""
    group: str = ""  # as in the batch


class ResultBatch(Message, frozen=True, kw_only=True):
    """Results of one site that travel in one record."""

    format: int = 1
    site: str
    results: tuple[Result, ...] = ()
    started: tuple[Started, ...] = ()

    def begun(self) -> list[Started]:
        """Return what is known to have begun."""
        return [one for one in self.started if one.started]


class FunctionCode(Message, frozen=True, kw_only=True, tag="code"):
    """A function's body, named by its content: the same code is stored once."""

    hash: str  # `upon.code_hash` of body
    body: bytes  # cloudpickle
    python: str  # "3.11": what pickled it; empty: source text or names, for any
    created: int = 0


class FunctionRecord(Message, frozen=True, kw_only=True, tag="function"):
    """A version of a named function. What is left of a deleted one keeps its number from being given again."""

    name: str
    version: int  # from 1; a number is never given twice
    code: str
    description: str = ""  # first line of its docstring
    source: str = ""  # its source text, when it was there, for people
    python: str = ""
    principal: str = ""
    created: int = 0
    deleted: int = 0  # when; 0 = it is there
    deleted_by: str = ""


class RuleRevision(Message, frozen=True, kw_only=True, tag="rule"):
    """One wording of a rule, never changed. `spec` is what stood in the YAML, as plain data."""

    name: str
    revision: int  # from 1; a number is never given twice
    spec: dict[str, Any]
    principal: str = ""
    created: int = 0


class RuleActivation(Message, frozen=True, kw_only=True):
    """How one rule stands from a moment on: which revision is in force."""

    rule: str
    revision: int = 0  # 0 = none: the rule is deleted
    enabled: bool = True  # false: somebody disabled it by hand; its spec may do so, too
    epoch: int = 1  # as in `Cause`
    file: str = ""  # where its YAML came from


class RuleActivations(Message, frozen=True, kw_only=True, tag="activations"):
    """What one request changed of the rules, all of it or nothing. In force from the moment that Kafka had it."""

    number: int  # from 1, in the order of the requests
    rules: tuple[RuleActivation, ...]
    action: str = "apply"  # what was asked: apply, delete, enable, disable, rollback, prune
    principal: str = ""
    ends: dict[int, int] = {}  # where each partition of upon.events ended then: what is behind is later (`moments`)


class ManagerStatus(Message, frozen=True, kw_only=True):
    """One manager as its dispatcher sees it."""

    id: str
    host: str
    pid: int
    workers: tuple[int, ...] = ()  # process ids
    slots: int = 0  # how many tasks it can run at once
    busy: int = 0
    python: str = ""


class Straggler(Message, frozen=True, kw_only=True):
    """A task that runs far beyond its function's usual time."""

    id: str
    function: str
    worker: str  # manager/pid
    started: int  # ns since the epoch
    ran: float  # s, so far
    usual: float  # s that nine of ten calls of this function take at most


class SiteStatus(Message, frozen=True, kw_only=True):
    """What a dispatcher says of its site, every few seconds and when a manager comes or goes; epochs: `tenure`."""

    format: int = 1
    site: str
    pid: int
    host: str
    epoch: int = 0  # of the dispatcher: whose is higher took over from the others; 0 = from before there were any
    session: str = ""  # the dispatcher's: tells two apart that bear the same epoch
    process: str = ""  # the dispatcher's, on its host: `upon.processes.myself`
    at: int  # when this was said
    state: Literal["up", "down"] = "up"
    managers: tuple[ManagerStatus, ...] = ()
    queued: int = 0  # invocations held by the dispatcher and not yet sent to a manager
    running: int = 0
    draining: bool = False  # nothing new is started: it is closed, or about to stop
    closed: bool = False  # somebody wants nothing started there, until it is opened again: its next dispatcher, too
    remembered: int = 0  # results that may be given again
    repeated: int = 0  # how often one was
    stragglers: tuple[Straggler, ...] = ()  # those that run the longest, a few

    def holds_after(self, before: SiteStatus | None) -> bool:
        """Whether this counts, read after `before` (the last that counted): one that was superseded says nothing."""
        mine = (self.epoch, self.session)
        return before is None or self.epoch > before.epoch or mine == (before.epoch, before.session)


class SiteChoices(Message, frozen=True, kw_only=True):
    """Which of several candidate sites invocations go to. Of several choices for an id the first in the log counts."""

    format: int = 1
    sites: dict[str, str]  # invocation id → site


class DeadLetter(Message, frozen=True, kw_only=True, tag="letter"):
    """A record that could not be processed, with the reason. Made by `upon.deadletters`, which bounds each field."""

    format: int = 1
    id: str
    origin: str  # topic/partition/offset
    part: str  # who gave up: streams, dispatcher, service, sources
    reason: str  # the error's class and message
    key: bytes = b""
    value: bytes = b""  # the record's, or that of the one event of a batch record that this is about
    headers: tuple[tuple[str, bytes], ...] = ()
    attempts: int = 1
    at: int = 0
    rule: str = ""  # the rule that could not fire; empty: it is about the record itself
    action: str = ""  # which of the rule's actions
    event_id: str = ""  # the event's id, shortened if it is very long
    function: str = ""  # what should have run
    site: str = ""  # where
    size: int = 0  # bytes of the value; more than `value` has if it was cut
    whole: bool = True  # key, value and headers are all here; else the record may still stand at `origin`


class Resolved(Message, frozen=True, kw_only=True, tag="resolved"):
    """Dead letters that somebody dealt with. They stay in the store's history."""

    format: int = 1
    ids: tuple[str, ...]
    how: Literal["retried", "dropped"]
    principal: str = ""
    at: int = 0


RegistryRecord = FunctionCode | FunctionRecord | RuleRevision | RuleActivations
DeadLetterRecord = DeadLetter | Resolved

M = TypeVar("M")
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(message: Message) -> bytes:
    """Return a message's MessagePack form."""
    return _encoder.encode(message)


def decode(data: bytes | memoryview, kind: type[M]) -> M:
    """Read a message of the class (or union) `kind`.

    Raises:
        InputError: the bytes are no such message, or of a version this code does not know.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        message: M = decoder.decode(data)
    except Exception as error:  # whatever the bytes: deep nesting is a RecursionError, a claimed length a MemoryError
        raise InputError(f"not a valid {getattr(kind, '__name__', kind)}: {error or type(error).__name__}") from error
    if (found := getattr(message, "format", FORMAT)) > FORMAT:
        raise InputError(f"{type(message).__name__} has format {found}; this code reads up to {FORMAT}: upgrade it")
    return message


def code_key(hash: str) -> bytes:
    """Return the key of the record of code."""
    return CODE_KEY + hash.encode()


def registry_key(record: RegistryRecord) -> bytes:
    """Return the key of a registry record: ``kind/name``, with the version where versions are kept apart.

    Activations have a key each, so that compaction keeps the history that decides over events read late.
    """
    match record:
        case FunctionCode(hash=code):
            return code_key(code)
        case FunctionRecord(name=name, version=version):
            return f"function/{name}@{version}".encode()
        case RuleRevision(name=name, revision=revision):
            return f"rule/{name}@{revision}".encode()
        case RuleActivations(number=number):
            return f"activations/{number}".encode()
