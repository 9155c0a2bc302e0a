"""What travels between the service and its clients: REST bodies in JSON, WebSocket frames in MessagePack.

REST, under /v1, `Authorization: Bearer TOKEN` on every route (only /healthz and /openapi.json are open):

    POST /v1/functions          NewFunction      → Function            GET /v1/functions, /v1/functions/{name[@version]}
    POST /v1/rules              NewRules         → list[Rule]          GET /v1/rules      DELETE /v1/rules/{name}
    POST /v1/rules/check, /prune  NewRules       → list[Rule]          GET /v1/rules/{name}/history → list[RuleThen]
    POST /v1/rules/{name}/enable, /disable, /rollback?revision= → Rule
    POST /v1/invocations        NewInvocation    → Submitted           (202)
    GET  /v1/tasks?status=&rule=&function=&site=&…       → list[Task]
    GET  /v1/tasks/{id}         → Task           POST /v1/tasks/{id}/cancel → 202
    POST /v1/tasks/retry, /v1/tasks/cancel      TaskChoice → Dealt     (202)
    POST /v1/events             one CloudEvent or a list → Published   (202)
    GET  /v1/events?since=&type=&subject=&limit=         → list[EventRecord]
    GET  /v1/sites              → list[Site]
    GET  /v1/deadletters?rule=&reason=&since=&…          → list[DeadLetterView], /v1/deadletters/{id}
    POST /v1/deadletters/retry, /v1/deadletters/drop     LetterChoice → Dealt     (202)
    GET  /v1/status             → SystemStatus   GET /v1/summary → Summary
    GET  /v1/stream             WebSocket: `FromClient` up, `FromService` down

An error is a `Problem` with a fitting status code; `error` is a class of `upon.errors`, so a client raises the same.
A listing is newest first. Bytes are base64 in JSON. Times: RFC 3339 strings in REST, integers (ns) in frames.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from upon.errors import InputError, RuleError, ServiceError, UponError, all_errors, public_class
from upon.messages import FunctionCode, Invocation, Result, Status


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
    python: str  # "3.11"
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
    timeout: float = 0.0  # s, 0 = none
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

    event: dict[str, Any]  # JSON event format; without its data if the answer would be too long
    recorded: str  # when Kafka had it
    origin: str  # topic/partition/offset


class Summary(Body, frozen=True, kw_only=True):
    """What somebody should look at, in numbers."""

    tasks: dict[str, int]  # pending, running, failed, cancelled → how many
    deadletters: int  # that nobody dealt with
    notes: list[str]  # what was amiss with the task store
    retention: dict[str, str]  # what → for how long it is kept


class SystemStatus(Body, frozen=True, kw_only=True):
    """What the service knows of the parts. `lag`: records not yet taken in, per consuming part."""

    kafka: str
    version: str
    sites: list[Site]
    lag: dict[str, int]
    rules: int
    functions: int


# ── WebSocket frames ──────────────────────────────────────────────────────────────────────────────────────────────


class Frame(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag=str.lower):
    """Base of the frames. `request` numbers a client's request; the answer repeats it."""


class Register(Frame, frozen=True, kw_only=True):
    """Make code known to all sites → `Done`."""

    request: int
    code: FunctionCode


class Submit(Frame, frozen=True, kw_only=True):
    """Run invocations at a site; sent again (same ids) after a reconnect they still run once → `Done` once in Kafka."""

    request: int
    site: str
    group: str
    invocations: tuple[Invocation, ...]


class Attach(Frame, frozen=True, kw_only=True):
    """Push the results of a group from now on, and those of `unfinished` that are there already → `Done`."""

    request: int
    group: str
    unfinished: tuple[str, ...] = ()


class CancelTasks(Frame, frozen=True, kw_only=True):
    """Cancel invocations, queued or running, at a site → `Done`; the outcome arrives as their results."""

    request: int
    site: str
    ids: tuple[str, ...]
    running: bool = True  # False: those that have begun are left alone


class Watch(Frame, frozen=True, kw_only=True):
    """Push events and task changes as they happen, from now on → `Done`."""

    request: int
    events: bool = False
    tasks: bool = False


class Done(Frame, frozen=True, kw_only=True):
    request: int


class Refused(Frame, frozen=True, kw_only=True):
    """The request failed; nothing of it took place."""

    request: int
    problem: Problem


class Results(Frame, frozen=True, kw_only=True):
    """Outcomes of invocations, and the ids of those that have begun and are not done (of those that take a while)."""

    results: tuple[Result, ...]
    started: tuple[str, ...] = ()


class EventSeen(Frame, frozen=True, kw_only=True):
    """An event passed (a watcher that is too slow misses some: `missed` says how many since the last)."""

    event: dict[str, Any]  # JSON event format
    missed: int = 0


class TaskChanged(Frame, frozen=True, kw_only=True):
    """A task was submitted, started (if it takes a while) or ended."""

    task: Task
    missed: int = 0


FromClient = Register | Submit | Attach | CancelTasks | Watch
FromService = Done | Refused | Results | EventSeen | TaskChanged

encode_frame = msgspec.msgpack.Encoder().encode
_from_client = msgspec.msgpack.Decoder(FromClient)
_from_service = msgspec.msgpack.Decoder(FromService)


def decode_from_client(data: bytes) -> FromClient:
    """Read a client's frame. Raises InputError if it is none."""
    try:
        frame: FromClient = _from_client.decode(data)
    except Exception as error:  # whatever the bytes: deep nesting is a RecursionError, a claimed length a MemoryError
        raise InputError(f"not a frame of this API: {error or type(error).__name__}") from error
    return frame


def decode_from_service(data: bytes) -> FromService:
    """Read the service's frame. Raises ServiceError if it is none (service and client of different versions)."""
    try:
        frame: FromService = _from_service.decode(data)
    except Exception as error:
        raise ServiceError(f"the service sent an unknown frame ({error}); are both of one version?") from error
    return frame


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
