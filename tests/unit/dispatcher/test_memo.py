"""Results that are given again: of the same call, to whoever says that he may have them."""

from __future__ import annotations

from typing import Any

from tests.unit.dispatcher.world import VALUE_ERROR, Machine, ended, invocation, ready, record
from upon.dispatcher.decisions.instructions import CancelAsked
from upon.dispatcher.decisions.memo import AROUND, Memo
from upon.messages import Invocation
from upon.store import reference


def pure(id: str, payload: bytes = b"mxx", **more: Any) -> Invocation:
    return invocation(id, payload=payload, memoize=True, **more)


def machine(entries: int = 10, size: int = 10_000, age: float = 0.0, slots: int = 4) -> Machine:
    m = Machine(memo=Memo(entries, size, age))
    m.do(ready(slots=slots))
    return m


def given(m: Machine) -> list[str]:
    return [id for id, _ in m.assigned()]


def test_the_same_call_has_the_result_of_the_first() -> None:
    m = machine()
    m.do(record(0, pure("a")), ended("a", payload=b"m\x07", preview="7"))
    m.do(record(1, pure("b")))
    assert given(m) == []
    again = m.result("b")
    assert (again.status, again.payload, again.preview, again.attempts) == ("succeeded", b"m\x07", "7", 0)
    assert again.worker == "as a"
    assert m.state.attempts.memo.hits == 1


def test_others_run_for_themselves() -> None:
    m = machine()
    m.do(record(0, pure("a")), ended("a", payload=b"m\x07"))
    m.do(record(1, invocation("asks not"), pure("other arguments", b"myy"), pure("other code", code="c1")))
    assert given(m) == ["asks not", "other arguments"]


def test_what_comes_while_the_first_runs_waits_for_it() -> None:
    m = machine()
    m.do(record(0, pure("a"), pure("b"), pure("c")))
    assert given(m) == ["a"]
    m.do(CancelAsked(("c",)))
    m.do(ended("a", payload=b"m\x07"))
    assert [m.result(id).status for id in "abc"] == ["succeeded", "succeeded", "cancelled"]


def test_of_those_that_wait_for_one_that_fails_the_next_runs() -> None:
    m = machine()
    m.do(record(0, pure("a"), pure("b"), pure("c")))
    m.do(ended("a", status="failed", failure=VALUE_ERROR))
    assert given(m) == ["b"]
    m.do(ended("b", payload=b"m\x07"))
    assert m.result("c").worker == "as b"


def test_it_is_bounded_in_entries_bytes_and_age() -> None:
    memo = Memo(entries=2, size=3 * AROUND, age=5.0)
    for number in range(3):
        memo.put(("c", 0, bytes([number])), str(number), b"v", "", now=100.0)
    assert [memo.get(("c", 0, bytes([number])), 101.0) is not None for number in range(3)] == [False, True, True]
    memo.put(("c", 0, b"large"), "large", b"v" * 2 * AROUND, "", now=101.0)
    assert len(memo) == 1
    assert memo.get(("c", 0, b"large"), 105.9) is not None
    assert memo.get(("c", 0, b"large"), 106.0) is None
    assert len(memo) == 0


def test_a_reference_to_the_store_is_one_tasks_own() -> None:
    m = machine()
    own = reference.encode(reference.Reference("store", "key", 5, 1))
    m.do(record(0, pure("a")), ended("a", payload=own))
    m.do(record(1, pure("b")))
    assert given(m) == ["b"]


def test_without_room_nothing_is_remembered() -> None:
    m = machine(entries=0)
    m.do(record(0, pure("a"), pure("b")))
    assert given(m) == ["a", "b"]
