"""Which readings of a process variable are events."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.instrument_adapters.epics_changes import Channel, Reading, differs


def readings(*values: object, severity: int = 0) -> list[Reading]:
    return [Reading(value, severity, "NO_ALARM", at) for at, value in enumerate(values, 1)]


def announced(channel: Channel, *values: object) -> list[object]:
    return [c.data["value"] for reading in readings(*values) for c in channel.reading(reading) if c.kind == "value"]


def test_the_first_reading_and_then_steps_beyond_the_deadband_are_announced() -> None:
    assert announced(Channel("p", 1.0), 0.0, 0.9, 1.0, 1.1, 1.2, 3.0) == [0.0, 1.1, 3.0]


def test_a_slow_drift_is_announced_each_time_it_went_beyond_the_deadband() -> None:
    assert announced(Channel("p", 1.0), *(n / 4 for n in range(13))) == [0.0, 1.25, 2.5]


def test_without_a_deadband_every_change_and_no_repetition_is_announced() -> None:
    assert announced(Channel("p"), 1, 1, 2, 2, 1) == [1, 2, 1]


def test_what_is_no_number_is_announced_when_it_differs() -> None:
    assert announced(Channel("p", 5.0), "a", "a", "b", [1, 2], [1, 2], [1, 3]) == ["a", "b", [1, 2], [1, 3]]


def test_an_alarm_is_announced_when_its_severity_changes() -> None:
    channel = Channel("p", 100.0)
    severities = [0, 0, 2, 2, 1, 0]
    found = [
        (change.kind, change.data.get("previous"), change.data["severity"])
        for at, severity in enumerate(severities, 1)
        for change in channel.reading(Reading(1.0, severity, "HIHI", at))
    ]
    assert found == [
        ("value", None, "NO_ALARM"),
        ("alarm", "NO_ALARM", "MAJOR"),
        ("alarm", "MAJOR", "MINOR"),
        ("alarm", "MINOR", "NO_ALARM"),
    ]


def test_a_repetition_of_the_present_state_is_dropped() -> None:
    channel = Channel("pv")
    first = Reading(1.0, 0, "NO_ALARM", 10)
    assert [change.kind for change in channel.reading(first)] == ["value"]
    assert channel.repeats(first)
    assert channel.reading(first) == []
    restored = Channel("pv").restored(channel.saved())
    assert restored.reading(first) == []


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    channel = Channel("pv")
    channel.reading(Reading(1.0, 0, "NO_ALARM", 1_000))
    assert [change.data["value"] for change in channel.reading(Reading(2.0, 0, "NO_ALARM", 5))] == [2.0]
    assert [change.kind for change in channel.reading(Reading(2.0, 2, "HIHI", 6))] == ["alarm"]
    assert [change.data["value"] for change in channel.reading(Reading(3.0, 2, "HIHI", 6))] == [3.0], "a coarse clock"


def test_connections_are_edges_and_the_first_silence_is_one() -> None:
    channel = Channel("p")
    kinds = [[c.kind for c in channel.connection(up, 1)] for up in (False, False, True, True, False, True)]
    assert kinds == [["disconnected"], [], ["connected"], [], ["disconnected"], ["connected"]]


@pytest.mark.parametrize(
    ("value", "before", "differ"),
    [
        (math.nan, 1.0, True),
        (1.0, math.nan, True),
        (math.nan, math.nan, False),
        (math.inf, math.inf, False),
        (math.inf, -math.inf, True),
        (1, math.inf, True),
        (True, 1, False),
        ("1", 1, True),
    ],
)
def test_strange_values(value: object, before: object, differ: bool) -> None:
    assert differs(value, before, 0.5) is differ


NUMBERS = st.lists(st.floats(-100, 100), min_size=1, max_size=40)


@given(NUMBERS, st.floats(0, 50))
def test_what_is_announced_is_never_further_from_the_truth_than_the_deadband(
    values: list[float], deadband: float
) -> None:
    channel = Channel("p", deadband)
    for reading in readings(*values):
        channel.reading(reading)
        assert abs(channel.announced - reading.value) <= deadband


@given(NUMBERS, st.floats(0, 50), st.integers(0, 40))
def test_a_restart_changes_nothing(values: list[float], deadband: float, restart: int) -> None:
    one, other = Channel("p", deadband), Channel("p", deadband)
    for index, reading in enumerate(readings(*values)):
        if index == restart:
            other = Channel("p", deadband).restored(json.loads(json.dumps(other.saved())))
        assert one.reading(reading) == other.reading(reading)
