"""The bodies of REST requests and answers, and errors as they travel."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from upon.errors import RuleError, ServiceError, UponError, all_errors, public_class
from upon.messages import Resources, Status


class Body(Struct, frozen=True, kw_only=True):
    """Base of all request and response bodies."""


MAX_MESSAGE = 8_000
"""Characters of an error's message, or of one of its fields, at most."""


class Problem(Body, frozen=True, kw_only=True):
    """What went wrong with a request. `detail` holds the error's own fields (RuleError: file, line, column, field)."""

    error: str
    message: str
    detail: dict[str, Any] = {}


class NewFunction(Body, frozen=True, kw_only=True):
    """Register a version of a named function. The same code under the same name gives the same version again."""

    name: str
    body: bytes  # `upon.serialize.dump_function`
    python: str  # "3.11"; empty: source text, for any
    description: str = ""
    source: str = ""


class Function(Body, frozen=True, kw_only=True):
    name: str
    version: int
    code: str
    description: str
    source: str
    python: str
    principal: str
    created: str


class FunctionVersion(Function, frozen=True, kw_only=True):
    """A version in the list of all that there ever were of a function."""

    newest: bool = False  # whether it is what the name alone means
    rules: list[str] = []  # rules that run it: those that name it, and for the newest those that name none
    deleted: str | None = None  # when
    deleted_by: str = ""


class NewRules(Body, frozen=True, kw_only=True):
    """Rules as YAML text; applied all or none. `file` says where they came from, in messages and for `prune`."""

    yaml: str
    file: str = "<rules>"
    again: bool = False  # raise their epochs: they fire again for what they have fired for
    prune: bool = False  # delete what came from `file` before and is not in it any more


class Rule(Body, frozen=True, kw_only=True):
    """A rule as it stands. `change`: what the request made of it (new, changed, unchanged, deleted …)."""

    name: str
    revision: int  # 0 = deleted; `spec` is what it was
    epoch: int
    enabled: bool  # whether it fires: neither its spec nor anybody by hand says no
    disabled_by_hand: bool
    spec: dict[str, Any]
    file: str
    principal: str
    created: str  # this revision
    since: str  # it stands as it does
    change: str = ""
    warnings: list[str] = []


class RuleThen(Body, frozen=True, kw_only=True):
    """How a rule stood from `since` on, and in which wording; one step of its history."""

    rule: Rule
    action: str  # apply, delete, enable, disable, rollback, prune
    by: str  # who asked
    current: bool  # it stands so now


class NewInvocation(Body, frozen=True, kw_only=True):
    """Run a registered function once, with plain (JSON) arguments."""

    function: str  # name[@version]
    site: str = "local"
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    payload: bytes = b""  # instead of both: a reference to them in the store, as `upon.store` makes it
    timeout: float = 0.0  # s, 0 = none
    resources: Resources | None = None  # what it has for itself: cores, memory in bytes, accelerators
    priority: int = 0  # among the caller's tasks; higher ones begin first
    limits: dict[str, int] = {}  # name → how many tasks that name it may run at a site at once
    memoize: bool = False  # the result of the same call may be given instead
    id: str | None = None  # own id: sent twice, it runs once
    group: str = ""  # whoever is attached to this group has the result pushed


class Submitted(Body, frozen=True, kw_only=True):
    id: str


class Published(Body, frozen=True, kw_only=True):
    ids: list[str]


class Hop(Body, frozen=True, kw_only=True):
    """One step of a task's way. `after` is ms since the first step."""

    name: str  # event, recorded, submitted, received, dispatched, started, finished, returned, stored
    at: str
    after: float


class TaskError(Body, frozen=True, kw_only=True):
    type: str
    message: str
    traceback: str


class TaskCause(Body, frozen=True, kw_only=True):
    """The event behind a task, in short."""

    id: str
    type: str
    source: str
    subject: str
    time: str | None
    root: str  # id of the event with which the chain of firings began
    depth: int  # firings in the chain, this one included


class Generation(Body, frozen=True, kw_only=True):
    """What became of a task before it was tried again."""

    generation: int
    status: Status
    site: str
    attempts: int
    worker: str
    submitted: str | None
    started: str | None
    finished: str | None
    error: TaskError | None


class Task(Body, frozen=True, kw_only=True):
    """A task as the task store has it, in its newest generation.

    In listings `timings`, `history`, `stdout`, `result` and an error's traceback are left empty.
    """

    id: str
    function: str
    version: int
    site: str
    status: Status
    rule: str | None
    rule_revision: int | None
    event_id: str | None
    submitted: str | None
    started: str | None
    finished: str | None
    attempts: int
    items: int = 0
    principal: str = ""
    worker: str = ""
    duration: float | None = None  # ms, started → finished
    result: Any = None  # plain data as it is; another Python object as {"python": repr}
    error: TaskError | None = None
    event: TaskCause | None = None
    timings: list[Hop] = []
    stdout: str = ""
    usual: float | None = None  # s that its function usually takes, when this one runs far beyond it
    group: str = ""  # the Executor that waits for it
    generation: int = 0  # how often it was tried again by hand
    history: list[Generation] = []  # the earlier generations, oldest first


class TaskOutput(Body, frozen=True, kw_only=True):
    """What a task has printed behind a place. Ask again with `attempt` and `end` (as `since`) for what comes.

    While a task runs, what it prints is shown from its second second on, at a bounded rate; a line in the text says
    where bytes are left out. Places count bytes, from the beginning of what the attempt has printed.
    """

    id: str
    status: Status  # a final one: nothing more comes
    attempt: int  # another than was asked for: it has begun anew, and this is from its beginning; 0 = not known
    start: int
    end: int
    text: str


class TaskChoice(Body, frozen=True, kw_only=True):
    """Tasks to retry or to cancel: these ids, or all that match, or all. At most so many at a time: `Dealt.after`."""

    ids: list[str] | None = None
    all: bool = False
    function: str | None = None  # name[@version]
    rule: str | None = None
    group: str | None = None
    site: str | None = None
    subject: str | None = None
    since: str | None = None  # RFC 3339, when it was submitted
    until: str | None = None
    status: Status | None = None  # retry: failed (default) or cancelled
    after: str | None = None  # go on behind this id


class Manager(Body, frozen=True, kw_only=True):
    id: str
    host: str
    pid: int
    workers: list[int]
    slots: int
    busy: int
    python: str


class Straggler(Body, frozen=True, kw_only=True):
    """A task that runs far beyond its function's usual time."""

    id: str
    function: str
    worker: str
    started: str
    ran: float  # s, when the site was last heard of
    usual: float  # s that nine of ten calls of its function take at most


class Site(Body, frozen=True, kw_only=True):
    name: str
    state: Literal["up", "down"]
    host: str
    pid: int
    seen: str
    queued: int
    running: int
    slots: int
    busy: int
    managers: list[Manager]
    stragglers: list[Straggler] = []
    draining: bool = False  # nothing new is started there
    remembered: int = 0  # results that may be given again (memoize)
    repeated: int = 0  # how often one was


class Drain(Body, frozen=True, kw_only=True):
    """Start nothing more at a site, or have some of its managers end."""

    managers: list[str] = []  # ids; empty: the site itself
    on: bool = True  # false: the site starts tasks again


class DeadLetterView(Body, frozen=True, kw_only=True):
    """What could not be processed. In listings `key`, `value` and `headers` are left empty."""

    id: str
    origin: str  # topic/partition/offset of the record
    part: str
    reason: str
    rule: str
    action: str
    event_id: str
    function: str
    site: str
    status: Literal["open", "retried", "dropped"]
    resolved: str | None  # when somebody dealt with it
    resolved_by: str
    at: str
    size: int  # bytes of the value
    attempts: int = 1
    key: str = ""
    value: str = ""  # as text, its beginning; what is no UTF-8 is escaped
    headers: dict[str, str] = {}


class LetterChoice(Body, frozen=True, kw_only=True):
    """Open dead letters to retry or to drop: these ids, or all that match, or all; some at a time: `Dealt.after`."""

    ids: list[str] | None = None
    all: bool = False
    rule: str | None = None
    reason: str | None = None  # a part of the reason
    since: str | None = None  # RFC 3339, when it was given up
    until: str | None = None
    after: str | None = None  # go on behind this id


class NotDealt(Body, frozen=True, kw_only=True):
    id: str
    reason: str  # and what can be done


class Dealt(Body, frozen=True, kw_only=True):
    """What was done with what was chosen. `after`: there may be more, ask again with it; None: that was all."""

    ids: list[str]
    refused: list[NotDealt] = []
    after: str | None = None


class EventRecord(Body, frozen=True, kw_only=True):
    """An event that is in Kafka still."""

    event: dict[str, Any]  # JSON event format
    recorded: str  # when Kafka had it
    origin: str  # topic/partition/offset
    left_out: int = 0  # bytes of an event that is too long to be listed: it is here without data and extensions


class PastEvents(Body, frozen=True, kw_only=True):
    """The newest events that were asked for."""

    events: list[EventRecord]  # oldest first
    more: bool  # whether there may be older ones
    complete_since: str | None = None  # reading stopped here: only after this time nothing is missing


class StoreUse(Body, frozen=True, kw_only=True):
    """How much the store of large arguments and results holds."""

    id: str  # what references name
    place: str
    payloads: int  # how many
    bytes: int
    bound: int  # bytes past which those of tasks that ended first go; 0 = none


class Summary(Body, frozen=True, kw_only=True):
    """What somebody should look at, in numbers."""

    tasks: dict[str, int]  # pending, running, failed, cancelled → how many
    deadletters: int  # that nobody dealt with
    notes: list[str]  # what was amiss with the task store, the store, and what of the registry cannot be read
    retention: dict[str, str]  # what → for how long it is kept
    store: StoreUse | None = None  # None: there is none


class SystemStatus(Body, frozen=True, kw_only=True):
    """What the service knows of the parts. `lag`: records not yet taken in, per consuming part."""

    kafka: str
    version: str
    sites: list[Site]
    lag: dict[str, int]
    rules: int
    functions: int


def problem(error: UponError) -> Problem:
    """Return an error as it travels."""
    fields = {k: _cut(v) for k, v in vars(error).items() if isinstance(v, str | int | float | bool)}
    return Problem(error=public_class(error).__name__, message=_cut(str(error)), detail=fields)


def _cut(value: Any) -> Any:
    """Return a text without its middle if it is long: what was wrong may be megabytes."""
    if not isinstance(value, str) or len(value) <= MAX_MESSAGE:
        return value
    return f"{value[: MAX_MESSAGE // 2]} … {value[-MAX_MESSAGE // 2 :]}"


def raised(found: Problem) -> UponError:
    """Return the error that a `Problem` stands for; a class unknown here becomes ServiceError."""
    cls = all_errors().get(found.error, ServiceError)
    if cls is RuleError and found.detail:
        return RuleError(**found.detail)
    return cls(found.message)
