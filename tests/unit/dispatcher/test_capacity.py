"""Where there is room: free slots first, warm code first, evenly; found in a few steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.dispatcher.world import invocation
from upon.dispatcher.decisions.capacity import Capacity, Manager
from upon.dispatcher.decisions.tasks import Task, new_task
from upon.messages import InvocationBatch

BATCH = InvocationBatch(site="s", invocations=())


def tasks(count: int, prefix: str) -> dict[str, Task]:
    made = (new_task(invocation(f"{prefix}{n}"), BATCH, (0, 0), 0) for n in range(count))
    return {task.id: task for task in made}


def manager(id: str, slots: int, *, holds: int = 0, warm: tuple[str, ...] = ()) -> Manager:
    return Manager(id, "h", 1, (), slots, "3.11", set(warm), 0.0, tasks=tasks(holds, id))


def site(*managers: Manager) -> Capacity:
    capacity = Capacity()
    for one in managers:
        capacity.add(one)
    capacity.check_invariants()
    return capacity


def dealt(capacity: Capacity, count: int = 1, depth: int = 2) -> dict[str, int]:
    return {manager.id: given for manager, given in capacity.deal("c0", depth, count)}


def test_nobody_there() -> None:
    assert dealt(site()) == {}


def test_a_free_slot_before_a_queue() -> None:
    assert dealt(site(manager("a", 2, holds=2, warm=("c0",)), manager("b", 4))) == {"b": 1}


def test_warm_before_cold() -> None:
    assert dealt(site(manager("cold", 2), manager("warm", 2, warm=("c0",)))) == {"warm": 1}
    assert dealt(site(manager("cold", 2, holds=2), manager("warm", 2, holds=3, warm=("c0",)))) == {"warm": 1}


def test_no_deeper_than_allowed() -> None:
    full = site(manager("a", 2, holds=4))
    assert dealt(full, depth=2) == {}
    assert dealt(full, depth=3) == {"a": 1}


def test_evenly_and_in_turns() -> None:
    capacity = site(manager("a", 4), manager("b", 4))
    assert dealt(capacity, 4) == {"a": 2, "b": 2}
    assert dealt(capacity, 100) == {"a": 4, "b": 4}
    assert [*dealt(capacity), *dealt(capacity), *dealt(capacity)] == ["a", "b", "a"]


def test_code_that_comes_and_goes() -> None:
    a, b = manager("a", 1, warm=("c0", "c1")), manager("b", 1)
    capacity = site(a, b)
    capacity.reheat(b, ("c0",))
    capacity.cool(a, "c0")
    capacity.check_invariants()
    assert dealt(capacity) == {"b": 1}
    capacity.forget("c0")
    capacity.check_invariants()
    assert a.warm == {"c1"}
    assert b.warm == set()


@given(
    st.lists(
        st.tuples(st.sampled_from(["come", "go", "more", "fewer", "resize"]), st.integers(0, 5), st.integers(1, 3)),
        max_size=60,
    ),
    st.integers(1, 4),
)
def test_whatever_happens_the_emptiest_is_found(steps: list[tuple[str, int, int]], depth: int) -> None:
    capacity = Capacity()
    for number, (what, which, count) in enumerate(steps):
        one = capacity.managers.get(str(which))
        if what == "come" and one is None:
            capacity.add(manager(str(which), count, warm=("c0",) if count == 1 else ()))
        elif one is None:
            continue
        elif what == "go":
            capacity.remove(one)
        elif what == "resize":
            capacity.resize(one, count)
        elif what == "more":
            one.tasks.update(tasks(count, f"{number}-"))
            capacity.moved(one)
        elif one.tasks:
            one.tasks.popitem()
            capacity.moved(one)
        capacity.check_invariants()
        there = capacity.managers.values()
        places = capacity.deal("c0", depth, count)
        room = [m for m in there if len(m.tasks) < m.slots * depth]
        assert bool(places) == bool(room)
        assert sum(share for _, share in places) <= count
        idle = any(len(m.tasks) < m.slots for m in there)
        for place, share in places:
            assert place in room
            assert 1 <= share <= place.slots - len(place.tasks) % place.slots
            assert not idle or len(place.tasks) < place.slots, "somebody is idle and another one was chosen"
