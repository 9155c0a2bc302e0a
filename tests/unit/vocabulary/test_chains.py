"""Chains: from a rule's cause through a task's environment to the event that the task publishes, and back."""

from __future__ import annotations

import pytest

from upon.chains import CAUSE, CHAIN, ROOT, chain_of, descending, enter, to_environment
from upon.errors import EventError
from upon.messages import Cause


def cause(**fields: object) -> Cause:
    given = {"rule": "r", "rule_revision": 1, "event_id": "e\x00 1", "event_type": "t", "event_source": "/s"}
    return Cause(**(given | fields))  # type: ignore[arg-type]


def test_what_a_task_publishes_carries_its_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAUSE, "")
    for one, expected in (
        (cause(), ("e\x00 1", {"r": 1})),
        (cause(root="e0", chain={"a.b": 2, "r": 1}), ("e0", {"a.b": 2, "r": 1})),
    ):
        enter(to_environment(one))
        extensions = descending({"mine": "x"})
        assert chain_of(extensions) == expected
        assert extensions["mine"] == "x"
        assert descending({ROOT: "other"}) == {ROOT: "other"}, "what says where it comes from is left alone"
    enter(to_environment(None))
    assert descending({"mine": "x"}) == {"mine": "x"}


def test_what_is_no_chain() -> None:
    assert chain_of({}) == ("", {})
    for text in ("r", "r=0", "r=1x", "=1", "r=1 -", 7):
        with pytest.raises(EventError, match="uponchain"):
            chain_of({CHAIN: text})


def test_a_variable_that_is_not_ours_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("x", "[1]", "{}"):
        monkeypatch.setenv(CAUSE, text)
        assert descending({}) == {}
