"""How a task is to be run: what `Executor.options` takes, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from upon import requirements
from upon.durations import parse_timeout
from upon.errors import InputError
from upon.messages import Resources, Retry


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a submitter. The default: no timeout, tried three times for lost workers alone, a core."""

    timeout: float = 0.0
    retry: Retry = field(default_factory=Retry)
    resources: Resources | None = None
    priority: int = 0
    limits: dict[str, int] = field(default_factory=dict)
    memoize: bool = False

    def described(self) -> dict[str, Any]:
        """Return them by the names that an invocation has for them, without the retry policy."""
        return {name: getattr(self, name) for name in ("timeout", "resources", "priority", "limits", "memoize")}

    def but(
        self,
        *,
        timeout: float | str | None = None,
        attempts: int | None = None,
        retry: Retry | None = None,
        cores: int | None = None,
        memory: int | str | None = None,
        accelerators: int | None = None,
        priority: int | None = None,
        limits: Mapping[str, int] | None = None,
        memoize: bool | None = None,
    ) -> Options:
        """Return these options, except for what is given: see `Executor.options`.

        Raises:
            InputError: a value is out of range.
        """
        given: dict[str, Any] = {}
        if timeout is not None:
            given["timeout"] = parse_timeout(timeout)
        if attempts is not None:
            if retry is not None:
                raise InputError("give attempts or retry, not both")
            if attempts < 1:
                raise InputError(f"attempts: must be 1 or more, not {attempts}")
            retry = Retry(attempts=attempts, on=("Exception",))
        if retry is not None:
            given["retry"] = retry
        if (cores, memory, accelerators) != (None, None, None):
            now = self.resources or Resources()
            given["resources"] = requirements.resources(
                now.cores if cores is None else cores,
                now.memory if memory is None else memory,
                now.accelerators if accelerators is None else accelerators,
            )
        if priority is not None:
            given["priority"] = requirements.priority(priority)
        if limits is not None:
            given["limits"] = requirements.limits(limits)
        if memoize is not None:
            given["memoize"] = bool(memoize)
        return replace(self, **given)
