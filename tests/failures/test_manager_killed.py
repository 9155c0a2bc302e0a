"""The manager is killed: its workers end with it, their work runs again on those of the next."""

from __future__ import annotations

from tests.failures.load import assert_nothing_lost_or_doubled, under_fault
from tests.systems import System


def test_manager_killed(system: System) -> None:
    outcome = under_fault(system, "manager-killed", lambda: system.kill("manager"))
    assert_nothing_lost_or_doubled(outcome, "manager-killed")
    system.wait_up()
