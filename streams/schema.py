"""The shape of a rule as it stands in YAML: keys, types, defaults. Meaning is given to it by `upon.streams.rules`.

One description serves reading, error messages and `rule_schema()`, the JSON schema that editors use.
Not here: what a pattern or an expression may say (`patterns`, `conditions`, `templates`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from upon.durations import parse_duration
from upon.errors import ConfigError, FunctionNotFound, InputError
from upon.registry import split_function
from upon.requirements import HIGHEST, MOST, MOST_MEMORY, limits
from upon.sizes import parse_size
from upon.topics import checked_site

RULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SEVERAL_EVENT_KEYS = frozenset(
    {"all", "any", "sequence", "absence", "count", "within", "by", "debounce", "throttle", "collect"}
)


def _duration(value: Any) -> float:
    return parse_duration(value)


def _positive_duration(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than 0; leave it out for no limit")
    return seconds


def _rule_name(value: Any) -> Any:
    if isinstance(value, str) and not RULE_NAME.fullmatch(value):
        raise ValueError(f"{value!r} cannot name a rule: use letters, digits, '.', '_' and '-', at most 100")
    return value


def _function(value: Any) -> Any:
    if isinstance(value, str):
        try:
            name, _ = split_function(value)
        except FunctionNotFound as error:
            raise ValueError(str(error)) from None
        if not name or re.search(r"[\s/]", name):
            raise ValueError(f"{value!r} cannot name a function: write name or name@version")
    return value


def _sites(value: Any) -> Any:
    candidates = value if isinstance(value, list) else [value]
    if not candidates:
        raise ValueError("must name at least one site")
    for site in candidates:
        if isinstance(site, str):
            try:
                checked_site(site)
            except ConfigError as error:
                raise ValueError(str(error)) from None
    return candidates


def _names(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"must be a list of exception class names: write [{value}]")
    if isinstance(value, list):
        for name in value:
            if isinstance(name, str) and not name.isidentifier():
                raise ValueError(f"{name!r} cannot name an exception class: write its bare name, such as OSError")
    return value


def _outputs(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _limits(value: dict[str, int]) -> dict[str, int]:
    try:
        return limits(value)
    except InputError as error:
        raise ValueError(str(error)) from None


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackoffSpec(_Spec):
    initial: Annotated[float, BeforeValidator(_duration)] = Field(
        default=1.0, description="wait before the second attempt"
    )
    factor: float = Field(default=2.0, ge=1, strict=True, description="each further wait is so many times longer")
    max: Annotated[float, BeforeValidator(_duration)] = Field(default=300.0, description="the longest wait")
    jitter: StrictBool = Field(default=True, description="wait a random part, half to whole, of it")


class RetrySpec(_Spec):
    attempts: StrictInt = Field(default=3, ge=1, le=1000, description="how often the function may start in all")
    backoff: BackoffSpec | None = Field(default=None, description="waits between attempts; default none")
    on: Annotated[list[StrictStr], BeforeValidator(_names)] = Field(
        default=["WorkerLost"],
        description="exception classes, by name, after which it is tried again; base classes count",
    )


class ResourcesSpec(_Spec):
    cores: StrictInt = Field(default=1, ge=1, le=MOST, description="cores that it has for itself")
    memory: Annotated[int, BeforeValidator(parse_size)] = Field(
        default=0, le=MOST_MEMORY, description="memory that it may take, such as 4GB; default not bounded"
    )
    accelerators: StrictInt = Field(default=0, ge=0, le=MOST, description="GPUs and the like that it has for itself")


class RunSpec(_Spec):
    function: Annotated[StrictStr, BeforeValidator(_function)] = Field(description="name or name@version")
    site: Annotated[list[StrictStr], BeforeValidator(_sites)] = Field(
        default=["local"], description="a site, or candidates in order of preference"
    )
    args: list[Any] = Field(default=[], description="positional arguments, with ${CEL} templates")
    kwargs: dict[Any, Any] = Field(default={}, description="keyword arguments, with ${CEL} templates")
    outputs: Annotated[list[StrictStr], BeforeValidator(_outputs)] = Field(
        default=[], description="files that the function writes, * is any text: the rule does not fire for them"
    )
    timeout: Annotated[float, BeforeValidator(_positive_duration)] | None = Field(
        default=None, description="longest duration of one attempt; default no limit"
    )
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec, description="what it has for itself")
    priority: StrictInt = Field(
        default=0, ge=-HIGHEST, le=HIGHEST, description="among the tasks of this rule; higher ones begin first"
    )
    limits: Annotated[dict[StrictStr, StrictInt], AfterValidator(_limits)] = Field(
        default={}, description="name → how many tasks that name it, of any rule or caller, may run at a site at once"
    )
    memoize: StrictBool = Field(
        default=False, description="the result of the same call, with the same arguments, may be given instead"
    )
    retry: RetrySpec = Field(default_factory=RetrySpec, description="when a failed attempt is tried again")


class RuleSpec(_Spec):
    name: Annotated[StrictStr, BeforeValidator(_rule_name)] = Field(description="unique among the rules")
    description: StrictStr = Field(default="", description="for people")
    enabled: StrictBool = Field(default=True, description="false: the rule is kept and does nothing")
    upon: dict[Any, Any] = Field(description="event pattern: field → list of alternatives")
    where: StrictStr | None = Field(default=None, description="CEL condition over the event")
    once: StrictStr | None = Field(
        default=None, description="CEL key; equal keys fire once. Default: source and id of the event"
    )
    run: RunSpec = Field(description="what to run, where, with what")


RULE_KEYS = tuple(RuleSpec.model_fields)
KEYS: dict[tuple[str, ...], tuple[str, ...]] = {
    (): RULE_KEYS,
    ("run",): tuple(RunSpec.model_fields),
    ("run", "resources"): tuple(ResourcesSpec.model_fields),
    ("run", "retry"): tuple(RetrySpec.model_fields),
    ("run", "retry", "backoff"): tuple(BackoffSpec.model_fields),
}
"""The keys allowed in each mapping of a rule, by its path."""


def rule_schema() -> dict[str, Any]:
    """Return the JSON schema of one rule."""
    return RuleSpec.model_json_schema()
