"""What a worker could not know when it judged a record is made good before the record is done."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from upon.moments import Moment, Since
from upon.streams.barrier import Again, Barrier


def names(again: Again[Any]) -> set[str]:
    return {rule for one in again.changes for rule in one.rules}


def test_a_record_is_judged_again_for_what_changed_before_it_and_came_after_it() -> None:
    barrier: Barrier[str] = Barrier()
    barrier.judged("early", Moment(9), 1)
    barrier.judged("late", Moment(20), 1)
    barrier.changed(2, Since(10, {}), ["a", "b"])
    barrier.judged("knows", Moment(20), 2)
    barrier.changed(3, Since(20, {}), ["c"])
    found = {one.work: one for one in barrier.release(barrier.mark)}
    assert {work: names(one) for work, one in found.items()} == {
        "early": set(),
        "late": {"a", "b", "c"},
        "knows": {"c"},
    }
    assert "a" in found["late"]
    assert "a" not in found["knows"]
    assert len(barrier) == 0


def test_a_change_before_a_record_counts_whatever_the_clock_says() -> None:
    barrier: Barrier[str] = Barrier()
    barrier.judged("behind", Moment(5, 0, 7), 0)
    barrier.judged("before", Moment(5, 0, 6), 0)
    barrier.changed(1, Since(1000, {0: 7}), ["r"])
    assert [(one.work, names(one)) for one in barrier.release(barrier.mark)] == [("behind", {"r"}), ("before", set())]


def test_what_came_after_the_mark_stays() -> None:
    barrier: Barrier[str] = Barrier()
    barrier.judged("a", Moment(1), 0)
    mark = barrier.mark
    barrier.judged("b", Moment(1), 0)
    barrier.changed(1, Since(1, {}), ["r"])
    assert [(one.work, names(one)) for one in barrier.release(mark)] == [("a", {"r"})]
    assert barrier.release(mark) == []
    assert [(one.work, names(one)) for one in barrier.release(barrier.mark)] == [("b", {"r"})]


def test_nothing_is_kept_while_nothing_is_held() -> None:
    barrier: Barrier[str] = Barrier()
    barrier.changed(1, Since(1, {}), ["r"])
    barrier.judged("a", Moment(1), 0)
    assert barrier.release(barrier.mark)[0].changes == (), "it was in the index already"
    barrier.judged("b", Moment(5), 1)
    barrier.changed(2, Since(5, {}), ["r"])
    barrier.judged("c", Moment(5), 2)
    barrier.release(1)
    barrier.release(2)
    assert [one.changes for one in barrier.release(3)] == [()]


@given(st.lists(st.sampled_from(["change", "record", "tick", "take", "judge", "ask", "release"]), max_size=80))
def test_whatever_comes_late_no_record_leaves_without_a_change_that_kafka_had_before_it(steps: list[str]) -> None:
    """Kafka's two logs, and a worker that reads both at any pace; before it asks, time passes (`SETTLED`)."""
    barrier: Barrier[int] = Barrier()
    now, taken, judged = 1, 0, 0
    registry: list[int] = []  # when Kafka had change number 1, 2, …
    events: list[int] = []
    known: dict[int, int] = {}  # record → the changes that it was judged by
    asked: list[tuple[int, int]] = []
    for step in [*steps, *["judge"] * 80, "ask", *["take"] * 80, *["release"] * 80]:
        match step:
            case "change":
                registry.append(now)
            case "record":
                events.append(now)
            case "tick":
                now += 1
            case "take" if taken < len(registry):
                taken += 1
                barrier.changed(taken, Since(registry[taken - 1], {}), [str(taken)])
            case "judge" if judged < len(events):
                barrier.judged(judged, Moment(events[judged]), taken)
                known[judged] = taken
                judged += 1
            case "ask":
                mark, now = barrier.mark, now + 1
                asked.append((mark, len(registry)))
            case "release" if asked and taken >= asked[0][1]:
                for one in barrier.release(asked.pop(0)[0]):
                    judged_by = {str(number) for number in range(1, known.pop(one.work) + 1)} | names(one)
                    before = {str(n) for n, at in enumerate(registry, 1) if at <= events[one.work]}
                    assert judged_by >= before
    assert not known, "all of them leave"
    assert len(barrier) == 0
