"""What travels between the service and its clients: REST bodies in JSON, WebSocket frames in MessagePack.

REST, under /v1, `Authorization: Bearer TOKEN` on every route (only /healthz and /openapi.json are open):

    POST /v1/functions          NewFunction      → Function            GET /v1/functions, /v1/functions/{name[@version]}
    GET  /v1/functions/{name}/versions           → list[FunctionVersion]
    DELETE /v1/functions/{name[@version]}?force= → list[FunctionVersion]
    POST /v1/rules              NewRules         → list[Rule]          GET /v1/rules      DELETE /v1/rules/{name}
    POST /v1/rules/check, /prune  NewRules       → list[Rule]          GET /v1/rules/{name}/history → list[RuleThen]
    POST /v1/rules/{name}/enable, /disable, /rollback?revision= → Rule
    POST /v1/invocations        NewInvocation    → Submitted           (202)
    GET  /v1/tasks?status=&rule=&function=&site=&…       → list[Task]
    GET  /v1/tasks/{id}         → Task           POST /v1/tasks/{id}/cancel → 202
    GET  /v1/tasks/{id}/output?attempt=&since=&wait= → TaskOutput
    POST /v1/tasks/retry, /v1/tasks/cancel      TaskChoice → Dealt     (202)
    POST /v1/events             one CloudEvent or a list → Published   (202)
    GET  /v1/events?type=&source=&subject=&since=&…      → PastEvents
    GET  /v1/sites              → list[Site]
    GET  /v1/deadletters?rule=&reason=&since=&…          → list[DeadLetterView], /v1/deadletters/{id}
    POST /v1/deadletters/retry, /v1/deadletters/drop     LetterChoice → Dealt     (202)
    GET  /v1/status             → SystemStatus   GET /v1/summary → Summary
    GET  /v1/stream             WebSocket: `FromClient` up, `FromService` down

An error is a `Problem` with a fitting status code; `error` is a class of `upon.errors`, so a client raises the same.
A listing is newest first. Bytes are base64 in JSON. Times: RFC 3339 strings in REST, integers (ns) in frames.
"""

from __future__ import annotations

from upon.api.bodies import (
    MAX_MESSAGE,
    Body,
    DeadLetterView,
    Dealt,
    Drain,
    EventRecord,
    Function,
    FunctionVersion,
    Generation,
    Hop,
    LetterChoice,
    Manager,
    NewFunction,
    NewInvocation,
    NewRules,
    NotDealt,
    PastEvents,
    Problem,
    Published,
    Rule,
    RuleThen,
    Site,
    StoreUse,
    Straggler,
    Submitted,
    Summary,
    SystemStatus,
    Task,
    TaskCause,
    TaskChoice,
    TaskError,
    TaskOutput,
    problem,
    raised,
)
from upon.api.frames import (
    Attach,
    CancelTasks,
    Done,
    EventSeen,
    Frame,
    FromClient,
    FromService,
    Refused,
    Register,
    Results,
    ResultsAsTheyStand,
    Submit,
    TaskChanged,
    Watch,
    decode_from_client,
    decode_from_service,
    encode_frame,
)

__all__ = [
    "MAX_MESSAGE",
    "Attach",
    "Body",
    "CancelTasks",
    "DeadLetterView",
    "Dealt",
    "Done",
    "Drain",
    "EventRecord",
    "EventSeen",
    "Frame",
    "FromClient",
    "FromService",
    "Function",
    "FunctionVersion",
    "Generation",
    "Hop",
    "LetterChoice",
    "Manager",
    "NewFunction",
    "NewInvocation",
    "NewRules",
    "NotDealt",
    "PastEvents",
    "Problem",
    "Published",
    "Refused",
    "Register",
    "Results",
    "ResultsAsTheyStand",
    "Rule",
    "RuleThen",
    "Site",
    "StoreUse",
    "Straggler",
    "Submit",
    "Submitted",
    "Summary",
    "SystemStatus",
    "Task",
    "TaskCause",
    "TaskChanged",
    "TaskChoice",
    "TaskError",
    "TaskOutput",
    "Watch",
    "decode_from_client",
    "decode_from_service",
    "encode_frame",
    "problem",
    "raised",
]
