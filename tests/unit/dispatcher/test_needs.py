"""Tasks that need more than a slot: resources, a share of what is limited, and priority."""

from __future__ import annotations

from typing import Any

from tests.unit.dispatcher.world import Machine, ended, invocation, ready, record
from upon.dispatcher.decisions.instructions import CancelAsked, DrainAsked
from upon.dispatcher.protocol import Tasks
from upon.messages import Invocation, Resources

GB = 1 << 30


def big(id: str, cores: int = 2, **more: Any) -> Invocation:
    return invocation(id, resources=Resources(cores=cores, **more))


def given(m: Machine, manager: str = "m1") -> list[str]:
    return [id for id, _ in m.assigned(manager)]


def test_a_task_takes_as_many_slots_as_it_wants_cores() -> None:
    m = Machine()
    m.do(ready(slots=4))
    m.do(record(0, big("a", 3), big("b", 2), "c"))
    assert given(m) == ["a"]  # b waits for two, and c for its turn
    m.do(ended("a"))
    assert given(m) == ["b", "c"]


def test_it_is_never_queued_at_a_manager_ahead_of_its_turn() -> None:
    m = Machine()
    m.do(ready(slots=2))
    m.do(record(0, big("a"), big("b")))
    assert given(m) == ["a"]
    m.do(ended("a"))
    assert given(m) == ["b"]


def test_memory_and_accelerators_are_counted_and_told() -> None:
    m = Machine()
    m.do(ready(slots=8, memory=4 * GB, accelerators=("0", "1")))
    hungry = [big(f"m{n}", 1, memory=3 * GB) for n in range(2)]
    m.do(record(0, *hungry, *(big(f"g{n}", 1, accelerators=1) for n in range(3))))
    assert given(m) == ["m0", "g0", "g1"]
    told = {one.id: one.resources for tasks in m.sent(Tasks) for one in tasks.assignments}
    assert told["m0"] == Resources(memory=3 * GB)
    assert told["g0"] == Resources(accelerators=1)
    m.do(ended("g1"))
    assert given(m) == ["g2"]
    m.do(ended("m0"))
    assert given(m) == ["m1"]


def test_a_manager_is_kept_for_what_waits_so_that_small_tasks_do_not_starve_it() -> None:
    m = Machine()
    m.do(ready(slots=2))
    m.do(record(0, "s0", "s1"))
    m.do(record(1, big("big")))
    m.do(record(2, "x0"), ended("s0"))
    assert m.assigned() == []
    m.do(record(3, "x1"), ended("s1"))
    assert given(m) == ["big", "x0", "x1"]  # those behind it wait at the manager


def test_who_is_kept_for_a_task_that_is_cancelled_works_for_others_at_once() -> None:
    m = Machine()
    m.do(ready(slots=2))
    m.do(record(0, "s0", "s1"))
    m.do(record(1, big("big")))
    m.do(ended("s0"), record(2, "x"))
    assert m.assigned() == []
    m.do(CancelAsked(("big",)))
    assert given(m) == ["x"]


def test_what_nobody_could_run_waits_for_a_manager_that_could_and_holds_up_nobody() -> None:
    m = Machine()
    m.do(ready(slots=2))
    m.do(record(0, big("gpu", 1, accelerators=1), big("wide", 4), "small"))
    assert given(m) == ["small"]
    m.do(ready("m2", slots=4, accelerators=("0",)))
    assert given(m, "m2") == ["gpu"]
    m.do(ended("gpu", manager="m2"))
    assert given(m, "m2") == ["wide"]


def test_what_is_limited_is_at_managers_so_often_at_once() -> None:
    m = Machine()
    m.do(ready("m1", slots=8), ready("m2", slots=8))
    m.do(record(0, *(invocation(f"d{n}", limits={"detector": 2}) for n in range(4)), "free"))
    at = {id: manager for manager in ("m1", "m2") for id in given(m, manager)}
    assert sorted(at) == ["d0", "d1", "free"]
    m.do(ended("d0", manager=at["d0"]))
    assert [*given(m, "m1"), *given(m, "m2")] == ["d2"]


def test_priority_counts_within_an_account() -> None:
    m = Machine()
    m.do(record(0, "low", invocation("high", priority=5), invocation("lowest", priority=-1)))
    m.do(ready(slots=3))
    assert given(m) == ["high", "low", "lowest"]


def test_a_site_that_is_closed_gives_out_nothing_though_somebody_was_kept() -> None:
    m = Machine()
    m.do(ready(slots=2))
    m.do(record(0, "s0", "s1"))
    m.do(record(1, big("big")), ended("s0"), record(2, "x"))
    m.do(DrainAsked())
    m.do(CancelAsked(("big",)))
    assert m.assigned() == []
    m.do(DrainAsked(on=False))
    assert given(m) == ["x"]
