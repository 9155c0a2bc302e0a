"""The service is killed: Executors reattach and find their results."""

from __future__ import annotations

from tests.failures.load import assert_executed_once, assert_nothing_lost_or_doubled, under_fault
from tests.systems import System


def test_service_killed(system: System) -> None:
    outcome = under_fault(system, "service-killed", lambda: system.kill("service"))
    assert_nothing_lost_or_doubled(outcome, "service-killed")
    assert_executed_once(outcome)
    system.wait_up()
