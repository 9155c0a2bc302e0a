"""Who is next: fair between accounts, in order within each, no deeper than the function allows."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.dispatcher.world import invocation
from upon.dispatcher.decisions.tasks import Task, account_of, new_task
from upon.dispatcher.decisions.waiting import MAX_PREFETCH, Depths, Waiting
from upon.messages import Cause, InvocationBatch


def task(id: str, group: str = "g", code: str = "c0") -> Task:
    return new_task(invocation(id, code=code), InvocationBatch(site="s", group=group, invocations=()), (0, 0), 0)


def fill(waiting: Waiting, count: int, group: str = "g", code: str = "c0") -> None:
    for n in range(count):
        waiting.add(task(f"{group}{code}{n}", group, code))


def served(waiting: Waiting, most: int = 1, level: int = 0, count: int = 1 << 30) -> list[Task]:
    out: list[Task] = []
    while len(out) < count and (lane := waiting.next(level)) is not None:
        out += waiting.take(lane, min(most, waiting.turn(lane)))
    return out


def test_whose_share_it_is() -> None:
    rule = Cause(rule="thumbs", rule_revision=1, event_id="e", event_type="t", event_source="s")
    mine = InvocationBatch(site="s", group="g", principal="ana", invocations=())
    fired = InvocationBatch(site="s", principal="streams", invocations=())
    assert account_of(mine, invocation("a")) == "g"
    assert account_of(fired, invocation("a", cause=rule)) == "rule thumbs"
    assert account_of(fired, invocation("a")) == "streams"


def test_ten_behind_a_hundred_thousand_have_their_share() -> None:
    waiting = Waiting()
    fill(waiting, 10_000, "many")
    first = served(waiting, 64, count=500)
    assert len(first) >= 500
    fill(waiting, 10, "few")
    order = [one.group for one in served(waiting, 64, count=200)]
    assert Counter(order[:60])["few"] == 10


def test_long_tasks_count_for_what_they_take() -> None:
    waiting = Waiting(Depths(horizon=0))
    waiting.observe("long", [1.0])
    waiting.observe("short", [0.01])
    fill(waiting, 50, "a", "long")
    fill(waiting, 1000, "b", "short")
    work: Counter[str] = Counter()
    for one in served(waiting, 1, count=505):
        work[one.group] += 100 if one.invocation.code == "long" else 1
    assert work["a"] == pytest.approx(work["b"], rel=0.3)


def test_what_was_not_expected_is_charged() -> None:
    waiting = Waiting(Depths(horizon=0))
    fill(waiting, 40, "a", "x")
    fill(waiting, 40, "b", "y")
    waiting.charge("a", 0.1)
    assert {one.group for one in served(waiting, 1, count=10)} == {"b"}


def test_what_took_less_keeps_the_order_within_its_account() -> None:
    waiting = Waiting()
    waiting.add(task("t0", code="c0"))
    waiting.charge("g", -1.0)
    waiting.add(task("t1", code="c1"))
    assert [one.id for one in served(waiting, 3)] == ["t0", "t1"]


def test_who_comes_back_has_no_credit_for_its_absence() -> None:
    waiting = Waiting()
    fill(waiting, 1000, "busy")
    served(waiting, 1, count=500)
    fill(waiting, 500, "late")
    order = Counter(one.group for one in served(waiting, 1, count=200))
    assert order["busy"] >= 80


def test_order_within_an_account_whatever_the_functions() -> None:
    waiting = Waiting()
    for n, code in enumerate(["c0", "c0", "c1", "c0", "c1", "c1"]):
        waiting.add(task(f"t{n}", code=code))
    waiting.add(task("front", code="c1"), first=True)
    assert [one.id for one in served(waiting, 10)] == ["front", "t0", "t1", "t2", "t3", "t4", "t5"]


def test_a_function_that_may_not_go_deeper_lets_others_pass() -> None:
    waiting = Waiting()
    for _ in range(3):
        waiting.observe("short", [0.0001])
    fill(waiting, 2, code="long")
    fill(waiting, 2, code="short")
    assert [one.invocation.code for one in served(waiting, level=2)] == ["short", "short"]
    assert len(waiting) == 2
    assert [one.invocation.code for one in served(waiting, level=1)] == ["long", "long"]


def test_short_tasks_wait_in_number_and_a_long_one_ends_that() -> None:
    depths = Depths(horizon=0.02)
    assert depths.of("c0") == 2
    assert depths.observe("c0", [0.001])
    assert depths.of("c0") == 17
    depths.observe("c1", [0.0])
    assert depths.of("c1") == 1 + MAX_PREFETCH
    depths.observe("c0", [5.0])
    assert depths.of("c0") == 2


def test_a_depth_that_changes_while_tasks_wait() -> None:
    waiting = Waiting()
    fill(waiting, 3)
    assert waiting.next(5) is None
    waiting.observe("c0", [0.0001])
    assert waiting.next(5) is not None
    waiting.observe("c0", [5.0])
    assert waiting.next(5) is None
    assert len(served(waiting)) == 3


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "first", "remove", "take", "observe", "charge"]),
            st.sampled_from("ab"),
            st.sampled_from(["c0", "c1"]),
            st.integers(1, 4),
        ),
        max_size=80,
    )
)
def test_nothing_is_lost_and_order_is_kept(steps: list[tuple[str, str, str, int]]) -> None:
    """Against a list for each account."""
    waiting, model = Waiting(), {"a": [], "b": []}  # type: ignore[var-annotated]
    for n, (what, group, code, count) in enumerate(steps):
        one = task(f"t{n}", group, code)
        match what:
            case "add":
                waiting.add(one)
                model[group].append(one)
            case "first":
                waiting.add(one, first=True)
                model[group].insert(0, one)
            case "remove" if model[group]:
                waiting.remove(model[group].pop(count % len(model[group])))
            case "observe":
                waiting.observe(code, [[0.0], [0.001, 0.0], [0.01], [5.0]][count - 1])
            case "charge":
                waiting.charge(group, count - 2.0)
            case "take":
                lane = waiting.next(0)
                assert (lane is None) == (not model["a"] and not model["b"])
                if lane is not None:
                    taken = waiting.take(lane, min(count, waiting.turn(lane)))
                    queue = model[taken[0].group]
                    assert taken == queue[: len(taken)]
                    assert 1 <= len(taken) <= count
                    del queue[: len(taken)]
        assert len(waiting) == len(model["a"]) + len(model["b"])
        for code_ in ("c0", "c1"):
            assert len(waiting.of(code_)) == sum(t.invocation.code == code_ for q in model.values() for t in q)
    assert sorted(t.id for t in served(waiting, 3)) == sorted(t.id for queue in model.values() for t in queue)
