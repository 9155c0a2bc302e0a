"""Managers that drain, and tasks that are given back: nothing is lost, nothing has used up an attempt."""

from __future__ import annotations

from tests.unit.dispatcher.world import AT_ONCE, Machine, ended, invocation, ready, record
from upon.dispatcher import protocol
from upon.dispatcher.decisions.instructions import DrainAsked, Heard
from upon.dispatcher.decisions.waiting import Depths
from upon.dispatcher.protocol import Attempt, Begun, Bye, Death, Lost, Return, Returned, Started, Stop
from upon.messages import Retry


def begun(id: str, attempt: int = 1, manager: str = "m1") -> Heard:
    return Heard(manager, Started((Begun(id, attempt, 5, 7),)))


def returned(*ids: str, manager: str = "m1") -> Heard:
    return Heard(manager, Returned(tuple(Attempt(id, 1) for id in ids)))


class TestDraining:
    def test_it_gets_nothing_more_and_ends_what_runs(self) -> None:
        m = Machine()
        m.do(ready(slots=2), record(0, "a"))
        m.do(ready(slots=0), record(1, "b"))
        assert m.assigned() == []
        m.do(ended("a"), ready("m2"))
        assert m.result("a").status == "succeeded"
        assert m.assigned("m2") == [("b", 1)]

    def test_what_had_not_begun_goes_elsewhere_in_its_order(self) -> None:
        m = Machine(depths=Depths())
        m.do(ready("m2", slots=2), record(0, "x", "y"), ready("m1", slots=3), record(1, "a", "b", "c", "d"))
        m.do(begun("a"), ready("m1", slots=0), returned("b", "c"), ended("x", manager="m2"), ended("y", manager="m2"))
        again = [id for id, attempt in m.assigned("m2")]
        assert again[:2] == ["b", "c"]

    def test_a_manager_that_comes_and_drains_is_known(self) -> None:
        """It reconnects while it drains, with what it still runs."""
        m = Machine(hold_until=200.0)
        m.do(record(0, "a"), ready(slots=0, held=(Attempt("a", 1),)))
        m.do(ended("a"))
        assert m.result("a").status == "succeeded"

    def test_what_its_deadline_killed_is_not_to_blame(self) -> None:
        m = Machine()
        retry = Retry(attempts=2, jitter=False)
        m.do(ready("m1"), record(0, invocation("a", retry=retry)), begun("a"), ready("m1", slots=0), ready("m2"))
        m.do(Heard("m1", Lost((Death("a", 1, "was killed because its manager stopped", 7, -9, 5, 8, False),))))
        assert m.assigned("m2") == [("a", 2)]
        m.do(Heard("m1", Bye("told to stop")), ended("a", 2, manager="m2"))
        assert m.result("a").attempts == 1

    def test_but_what_may_start_once_has_started(self) -> None:
        m = Machine()
        m.do(ready("m1"), record(0, invocation("a", retry=Retry(attempts=1))))
        m.do(begun("a"), ready("m2"))
        m.do(Heard("m1", Lost((Death("a", 1, "was killed because its manager stopped", 7, -9, 5, 8, False),))))
        assert m.result("a").status == "failed"

    def test_what_is_given_back_and_cancelled_is_cancelled(self) -> None:
        m = Machine()
        m.do(ready("m1", slots=1), record(0, "a"))
        m.state.book.tasks["a"].cancelled = True
        m.do(returned("a"))
        assert m.result("a").status == "cancelled"

    def test_what_has_begun_is_not_given_back(self) -> None:
        m = Machine()
        m.do(ready("m1"), record(0, "a"), begun("a"), ready("m2"), returned("a"))
        assert m.assigned("m2") == []


class TestWaitingBehindSlowTasks:
    """Tasks were given ahead to a manager whose slots turn out to be taken for long, and another has nothing to do."""

    def stuck(self) -> Machine:
        m = Machine(depths=Depths())
        m.state.book.ready.depths.observe("c0", [0.001])
        m.do(ready("m1", slots=1), record(0, *"abcdef"))
        assert len(m.assigned()) == 6
        m.do(begun("a"))
        return m

    def test_they_are_asked_back_when_another_is_idle(self) -> None:
        m = self.stuck()
        assert m.sent(Return) == []
        m.do(ready("m2", slots=2))
        assert m.sent(Return) == [Return((Attempt("e", 1), Attempt("f", 1)))]
        m.do(returned("e", "f"))
        assert m.assigned("m2") == [("e", 2), ("f", 2)]

    def test_each_is_asked_for_once(self) -> None:
        m = self.stuck()
        m.do(ready("m2", slots=8))
        assert len(m.sent(Return)[0].attempts) == 5
        m.do(returned("f"))
        assert m.sent(Return) == []

    def test_what_began_meanwhile_stays(self) -> None:
        m = self.stuck()
        m.do(ready("m2", slots=1), ended("a"), begun("b"))
        m.do(*(ended(id) for id in "bcdef"))
        assert {m.result(id).attempts for id in "abcdef"} == {1}

    def test_a_manager_that_is_not_stuck_keeps_what_it_has(self) -> None:
        m = Machine(depths=Depths())
        m.state.book.ready.depths.observe("c0", [0.001])
        m.do(ready("m1", slots=2), record(0, *"abcdef"), begun("a"), ready("m2", slots=1))
        assert m.sent(Return) == []


def test_a_task_that_was_given_back_keeps_its_policy() -> None:
    m = Machine()
    m.do(ready("m1"), record(0, invocation("a", retry=AT_ONCE)), returned("a"))
    m.do(ready("m2"), ended("a", 2, manager="m2"), ended("a", 2))
    assert m.result("a").attempts == 1
    assert not any(isinstance(one, protocol.Tasks) for one in m.said)


def test_a_closed_site_starts_nothing_until_it_is_opened() -> None:
    m = Machine()
    m.do(ready(slots=2), record(0, "a"))
    m.do(DrainAsked(), record(1, "b"), ended("a"))
    assert m.assigned() == []
    assert m.state.draining
    m.do(DrainAsked(on=False))
    assert m.assigned() == [("b", 1)]
    assert not m.state.draining


def test_a_dispatcher_whose_site_was_closed_before_starts_nothing() -> None:
    m = Machine(closed=True)
    m.do(ready(), record(0, "a"))
    assert m.assigned() == []


def test_a_manager_that_somebody_wants_to_end_is_told_and_one_that_is_gone_is_nobody() -> None:
    m = Machine()
    m.do(ready("m1"), ready("m2"))
    m.do(DrainAsked(("m2", "gone")))
    assert [stop.drain for stop in m.sent(Stop, "m2")] == [True]
    assert not m.sent(Stop, "m1")
