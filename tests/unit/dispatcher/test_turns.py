"""Turns of the state machine: many inputs, one placement, one message of a kind for each manager; fair shares."""

from __future__ import annotations

from tests.unit.dispatcher.world import VALUE_ERROR, Machine, ended, invocation, ready, record, sends
from upon.dispatcher import protocol
from upon.dispatcher.instructions import Commit, RecordRead, ResultsStored, Send
from upon.messages import InvocationBatch, Retry


class TestTurns:
    """What has arrived together is answered together."""

    def test_one_message_of_a_kind_for_each_manager(self) -> None:
        m = Machine()
        m.do(ready(slots=8))
        said = m.state.handle([record(0, "a", "b"), record(1, "c"), record(2, "d")], m.now())
        assert [a.id for tasks in sends(said, protocol.Tasks) for a in tasks.assignments] == ["a", "b", "c", "d"]
        assert len(sends(said, protocol.Tasks)) == 1
        said = m.state.handle([ended(id) for id in "abcd"], m.now())
        said = m.state.handle([ResultsStored(("a", "b")), ResultsStored(("c",)), ResultsStored(("d",))], m.now())
        assert [len(stored.attempts) for stored in sends(said, protocol.Stored)] == [4]
        assert [said_ for said_ in said if isinstance(said_, Commit)] == [Commit({0: 3})]
        m.state.check_invariants()

    def test_what_is_settled_is_said_before_it_is_given_again(self) -> None:
        again = Retry(attempts=2, on=("ValueError",), jitter=False)
        m = Machine()
        m.do(ready(), record(0, invocation("a", retry=again)))
        said = m.state.handle([ended("a", 1, "failed", failure=VALUE_ERROR)], m.now())
        kinds = [type(one.message) for one in said if isinstance(one, Send)]
        assert kinds == [protocol.Stored, protocol.Tasks]


def test_another_groups_tasks_do_not_wait_behind_thousands() -> None:
    m = Machine()
    m.do(ready(slots=2), record(0, *(f"many{n}" for n in range(2000))))
    few = tuple(invocation(f"few{n}") for n in range(10))
    m.do(RecordRead(0, 1, InvocationBatch(site="s", group="other", invocations=few)))
    order = [id for id, _ in m.assigned()]
    while not {f"few{n}" for n in range(10)} <= set(order):
        m.do(*(ended(id) for id in m.state.book.managers["m1"].tasks.copy()))
        order += [id for id, _ in m.assigned()]
    assert len(order) < 60
