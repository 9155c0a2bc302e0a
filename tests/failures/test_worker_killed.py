"""A worker is killed in the middle of its work."""

from __future__ import annotations

from tests.failures.load import assert_nothing_lost_or_doubled, under_fault
from tests.systems import System


def test_worker_killed(system: System) -> None:
    outcome = under_fault(system, "worker-killed", lambda: system.kill("workers"))
    assert_nothing_lost_or_doubled(outcome, "worker-killed")
    system.wait_up()
