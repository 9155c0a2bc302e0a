"""The dispatcher is killed: the next rebuilds what is done, and finds what still runs at the manager."""

from __future__ import annotations

from tests.failures.load import assert_executed_once, assert_nothing_lost_or_doubled, under_fault
from tests.systems import System


def test_dispatcher_killed(system: System) -> None:
    outcome = under_fault(system, "dispatcher-killed", lambda: system.kill("dispatcher"))
    assert_nothing_lost_or_doubled(outcome, "dispatcher-killed")
    assert_executed_once(outcome)
    system.wait_up()
