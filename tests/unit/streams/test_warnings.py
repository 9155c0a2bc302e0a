"""What is probably not meant in a rule that is well formed."""

from __future__ import annotations

from typing import Any

from upon.messages import FunctionRecord, SiteStatus
from upon.registry import Registry
from upon.streams.rules import rule_from_spec
from upon.streams.warnings import warnings_of


def warned(run: dict[str, Any] | None = None, **keys: Any) -> list[str]:
    registry = Registry()
    registry.apply(FunctionRecord(name="f", version=1, code="c"))
    registry.apply_site(SiteStatus(site="local", pid=1, host="h", at=1), 1)
    spec = {"name": "r", "upon": {"type": ["t"]}, "run": {"function": "f", **(run or {})}, **keys}
    return warnings_of(rule_from_spec(spec), registry)


def test_a_rule_that_finds_everything_has_no_warnings() -> None:
    assert warned({"args": ["${subject} ${data.x}", "${event.type}"]}, where="has(event.proposal)") == []
    assert warned(upon={"proposal": ["P"]}, where="proposal == 'P' && data.all(one, one > 1)") == []
    assert warned({"args": ["${math.greatest(1, 2)}", "${int(data)}"]}) == []


def test_functions_and_sites_that_are_not_there() -> None:
    (function,) = warned({"function": "g"})
    assert function.startswith("run.function: function 'g' is not registered; there are: f")
    assert "no version 2" in warned({"function": "f@2"})[0]
    (site,) = warned({"site": ["local", "mars"]})
    assert site == "run.site: site 'mars' was never heard of; there are: local"


def test_names_that_an_event_has_only_as_extensions() -> None:
    (where,) = warned(where="datta.x > 1")
    assert where.startswith("where: reads 'datta', which an event has only if its source adds such an extension")
    assert "did you mean 'data'" in where
    found = warned({"kwargs": {"a": [{"b": "x ${subjekt} ${subjekt}"}]}}, once="run")
    assert [one.partition(":")[0] for one in found] == ["once", "run.kwargs"]
