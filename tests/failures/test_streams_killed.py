"""The stream worker is killed: the next reads again what it had not acknowledged."""

from __future__ import annotations

from tests.failures.load import assert_executed_once, assert_nothing_lost_or_doubled, under_fault
from tests.systems import System


def test_streams_killed(system: System) -> None:
    outcome = under_fault(system, "streams-killed", lambda: system.kill("streams"))
    assert_nothing_lost_or_doubled(outcome, "streams-killed")
    assert_executed_once(outcome)
    system.wait_up()
