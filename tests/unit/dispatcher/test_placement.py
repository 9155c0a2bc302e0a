"""Who gets what: free slots first, warm code first, evenly, then a prefetch by how long tasks take."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.dispatcher.world import invocation
from upon.dispatcher.placement import MAX_PREFETCH, Manager, Spread
from upon.dispatcher.tasks import Task, new_task
from upon.messages import InvocationBatch

BATCH = InvocationBatch(site="s", invocations=())


def tasks(count: int, code: str = "c0", prefix: str = "t") -> list[Task]:
    return [new_task(invocation(f"{prefix}{n}", code=code), BATCH, (0, 0), 0) for n in range(count)]


def manager(id: str, slots: int, *, holds: int = 0, warm: tuple[str, ...] = ()) -> Manager:
    held = {task.id: task for task in tasks(holds, prefix=f"{id}-")}
    return Manager(id, "h", 1, (), slots, "3.11", set(warm), 0.0, tasks=held)


def shares(spread: Spread, ready: list[Task], *managers: Manager) -> dict[str, int]:
    return {m.id: len(given) for m, given in spread.place(ready, managers)}


def test_evenly() -> None:
    assert shares(Spread(), tasks(4), manager("a", 4), manager("b", 4)) == {"a": 2, "b": 2}


def test_free_slots_before_a_queue() -> None:
    assert shares(Spread(), tasks(3), manager("a", 2, holds=2), manager("b", 4)) == {"b": 3}


def test_warm_before_cold_and_cold_before_waiting() -> None:
    warm, cold = manager("warm", 2, warm=("c0",)), manager("cold", 2)
    assert shares(Spread(), tasks(2), cold, warm) == {"warm": 2}
    assert shares(Spread(), tasks(4), cold, warm) == {"warm": 2, "cold": 2}


def test_one_waits_per_slot_as_long_as_nothing_is_known() -> None:
    assert shares(Spread(), tasks(100), manager("a", 2)) == {"a": 4}


def test_short_tasks_wait_in_number_and_a_long_one_ends_that() -> None:
    spread = Spread(horizon=0.02)
    spread.observe("c0", 0.001)
    assert spread.prefetch("c0") == 20
    spread.observe("c0", 0.0)
    assert spread.prefetch("c0") <= MAX_PREFETCH
    spread.observe("c0", 5.0)
    assert spread.prefetch("c0") == 1


def test_the_order_is_kept() -> None:
    ((_, given_),) = Spread().place(tasks(10), [manager("a", 2)])
    assert [task.id for task in given_] == ["t0", "t1", "t2", "t3"]


def test_nobody_there() -> None:
    assert Spread().place(tasks(3), []) == []


@given(
    ready=st.lists(st.sampled_from(["c0", "c1", "c2"]), max_size=40),
    managers=st.lists(
        st.tuples(st.integers(1, 5), st.integers(0, 12), st.sets(st.sampled_from(["c0", "c1"]))), max_size=4
    ),
    seconds=st.sampled_from([0.0, 0.001, 10.0]),
)
def test_no_task_twice_no_manager_overfull_no_slot_idle(
    ready: list[str], managers: list[tuple[int, int, set[str]]], seconds: float
) -> None:
    spread = Spread()
    spread.observe("c0", seconds)
    waiting = [tasks(1, code, f"{n}-")[0] for n, code in enumerate(ready)]
    there = [manager(f"m{n}", slots, holds=holds, warm=tuple(w)) for n, (slots, holds, w) in enumerate(managers)]
    placed = spread.place(waiting, there)
    counts = Counter(task.id for _, given_ in placed for task in given_)
    assert all(count == 1 for count in counts.values())
    got = {m.id: len(given_) for m, given_ in placed}
    for m in there:
        assert len(m.tasks) + got.get(m.id, 0) <= max(len(m.tasks), m.slots * (1 + MAX_PREFETCH))
    idle = any(len(m.tasks) + got.get(m.id, 0) < m.slots for m in there)
    assert not idle or len(counts) == len(waiting), "a slot is idle while tasks wait"
