from __future__ import annotations

from typing import Any

from upon.api import Site
from upon.cli.invoke import why_it_waits


def site(**changes: Any) -> Site:
    values: dict[str, Any] = {"name": "b7", "state": "up", "host": "node1", "pid": 5, "seen": "2026-03-01T12:00:00Z"}
    counts: dict[str, Any] = {"queued": 3, "running": 1, "slots": 2, "busy": 1, "managers": []}
    return Site(**(values | counts | changes))


def test_a_site_that_works_is_no_reason_to_wait() -> None:
    assert why_it_waits("b7", [site()]) == ""
    assert why_it_waits("b7", [site(name="other", state="down"), site()]) == ""
    assert why_it_waits("b7", []) == ""


def test_a_site_that_is_down_is_named_with_when_it_was_last_heard_of() -> None:
    said = why_it_waits("b7", [site(state="down", slots=0)])
    assert said.startswith("site b7 is down: its dispatcher on node1 was last heard of at ")
    assert "until it is back" in said
    assert "Ctrl-C stops the waiting, not the task" in said


def test_a_site_without_managers_is_named() -> None:
    assert why_it_waits("b7", [site(slots=0)]).startswith("site b7 is up without a manager; the task waits until one")
