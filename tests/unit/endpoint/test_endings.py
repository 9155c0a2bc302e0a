"""Outcomes that a manager makes itself."""

from __future__ import annotations

from upon.dispatcher.protocol import MAX_OUTCOME, Outcome
from upon.dispatcher.wire import outcome_bytes
from upon.endpoint.decisions.endings import bounded
from upon.messages import Failure, ItemFailure


def test_an_outcome_that_no_message_holds_is_a_failure_that_says_so() -> None:
    """Else its manager would be disconnected for it, again and again."""
    failure = Failure(type="E", message="m", traceback="x" * 100_000)
    items = tuple(ItemFailure(index=n, failure=failure) for n in range(400))
    told = bounded(Outcome("a", 2, "succeeded", b"r", bad_items=items, stdout="printed", started=1, finished=2, pid=3))
    assert (told.id, told.attempt, told.status, told.stdout) == ("a", 2, "failed", "printed")
    assert (told.started, told.finished, told.pid) == (1, 2, 3)
    assert told.failure is not None
    assert told.failure.type == "PayloadTooLarge"
    assert f"{MAX_OUTCOME:,}" in told.failure.message
    assert outcome_bytes(told) < 10_000


def test_any_other_is_left_alone() -> None:
    outcome = Outcome("a", 1, "succeeded", bytes(1_000_000))
    assert bounded(outcome) is outcome
