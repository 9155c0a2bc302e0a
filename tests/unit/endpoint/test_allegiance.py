"""Whom a manager serves: the highest epoch that it has heard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upon.endpoint.decisions.allegiance import Allegiance


def test_a_higher_epoch_is_served_and_a_lower_one_not_heard_any_more() -> None:
    manager = Allegiance()
    assert manager.takes(0, 5)
    assert manager.serving == 0
    assert manager.takes(1, 6)
    assert manager.serving == 1
    assert not manager.takes(0, 5)
    assert manager.serving == 1


def test_a_new_connection_is_greeted_where_the_active_one_is_or_may_be() -> None:
    manager = Allegiance()
    assert manager.greets(0)
    assert manager.greets(1)
    manager.takes(1, 6)
    assert not manager.greets(0)
    assert manager.greets(1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1))
def test_what_counts_never_falls(heard: list[tuple[int, int]]) -> None:
    manager, counted = Allegiance(), list[int]()
    for place, epoch in heard:
        if manager.takes(place, epoch):
            counted.append(epoch)
    assert counted == sorted(counted)
    assert manager.epoch == max(epoch for _, epoch in heard)
