"""Kafka itself is killed: all parts wait for it and go on."""

from __future__ import annotations

from tests.failures.load import assert_executed_once, assert_nothing_lost_or_doubled, under_fault
from tests.systems import System, wait_for


def test_kafka_killed(system: System) -> None:
    def kill() -> None:
        system.kill("kafka")
        wait_for(lambda: "signal 9" in system.status()["parts"]["kafka"]["reason"], "status says why Kafka is gone")

    outcome = under_fault(system, "kafka-killed", kill)
    assert_nothing_lost_or_doubled(outcome, "kafka-killed")
    assert_executed_once(outcome)
    system.wait_up()
