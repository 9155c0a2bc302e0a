"""Where to read on when a log has changed: nothing new is passed over, whatever was lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.kafka.positions import Log, Position, committed_position, resume


@pytest.mark.parametrize(
    ("position", "log", "expected"),
    [
        (Position(5), Log(0, 10), 5),
        (Position(5), Log(7, 10), 7),  # retention
        (Position(40), Log(0, 1), 0),  # past the end, and nothing tells what is new
        (Position(100, 7), Log(0, 120, 100), 100),  # intact
        (Position(100, 7), Log(0, 60), 60),  # the end was lost, nothing is new
        (Position(100, 7), Log(0, 80, 60), 60),  # the end was lost, 20 are new
        (Position(100, 7), Log(0, 200, 60), 60),  # lost and filled beyond the position
        (Position(100, 7), Log(0, 30, 0), 0),  # made anew
        (Position(0), Log(0, 0), 0),
    ],
)
def test_where_to_read_on(position: Position, log: Log, expected: int) -> None:
    assert resume(position, log) == expected


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.data())
def test_nothing_new_is_passed_over(read: int, kept: int, new: int, data: st.DataObject) -> None:
    """A log of `read` records loses all but `kept`, gets `new` ones, and its beginning may be gone."""
    kept = min(kept, read)
    times = [data.draw(st.integers(0, 3)) for _ in range(read)]
    old = [sum(times[: n + 1]) for n in range(read)]
    records = old[:kept] + [max(old, default=0) + 1 + n for n in range(new)]
    begin = data.draw(st.integers(0, len(records)))
    position = Position(read, old[-1] if old else None)
    newer = (
        None
        if position.time is None
        else next((n for n, t in enumerate(records) if n >= begin and t > (position.time or 0)), None)
    )
    at = resume(position, Log(begin, len(records), newer))
    assert begin <= at <= max(kept, begin), "all that is new is still to come"


def test_a_position_is_committed_with_its_time() -> None:
    at = Position(7, 1_700_000_000_000)
    assert committed_position(7, at.metadata()) == at
    assert committed_position(7, Position(7).metadata()) == Position(7)
    for foreign in (None, "", "x", "time=", "time=x", "time=" + "9" * 50, "time=²"):
        assert committed_position(7, foreign) == Position(7)
