"""Turns of the state machine: many inputs, one placement, one message of a kind for each manager; fair shares."""

from __future__ import annotations

from tests.unit.dispatcher.world import VALUE_ERROR, Machine, ended, invocation, ready, record, sends
from upon.dispatcher import protocol, wire
from upon.dispatcher.decisions.attempts import CODE_PATIENCE
from upon.dispatcher.decisions.instructions import (
    CodeGone,
    CodeKnown,
    Commit,
    Heard,
    PublishOutput,
    RecordRead,
    ResultsStored,
    Send,
)
from upon.dispatcher.decisions.state import UNREAD
from upon.dispatcher.protocol import Assignment, Attempt, Outcome
from upon.messages import Cause, Failure, InvocationBatch, ItemFailure, Retry
from upon.printed import OutputPiece


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


def test_what_nobody_asks_for_is_forgotten() -> None:
    """A manager has outcomes of work that was committed before this dispatcher began, longer ago than it knows."""
    m = Machine()
    m.do(ready(held=(Attempt("running", 1), Attempt("ended", 1))), ended("ended"))
    assert m.state.book.early
    for _ in range(int(UNREAD) + 10):
        m.wait(1.0)
        m.do(Heard("m1", protocol.Heartbeat(1)))
        if m.sent(protocol.Stored) or not m.state.book.early:
            break
    assert not m.state.book.early
    assert not m.state.book.claims
    m.do(ended("running"))
    assert "running" in m.state.book.early, "it is kept as long again"


def test_a_failure_counts_with_all_that_it_says() -> None:
    m = Machine()
    m.do(ready(), record(0, "a"))
    large = Failure(type="E", message="m" * 1000, traceback="t" * 100_000, payload=bytes(50_000))
    m.do(
        ended(
            "a", status="failed", failure=large, stdout="s" * 10_000, bad_items=(ItemFailure(index=0, failure=large),)
        )
    )
    assert 312_000 <= m.state.book.bytes <= 315_000


def test_messages_are_bounded_whatever_makes_them_long() -> None:
    m = Machine(max_tasks=10_000)
    cause = Cause(rule="r" * 20_000, rule_revision=1, event_id="e", event_type="t", event_source="s")
    m.do(ready(slots=200), record(0, *(invocation(f"t{n}", payload=b"", cause=cause) for n in range(200))))
    sent = m.sent(protocol.Tasks)
    assert len(sent) > 2
    assert sum(len(tasks.assignments) for tasks in sent) == 200
    assert max(len(b"".join(wire.pack(tasks))) for tasks in sent) < protocol.BATCH_BYTES + 100_000


def test_sizes_are_no_less_than_what_is_sent() -> None:
    failure = Failure(type="E", message="ü" * 100, traceback="x" * 1000, kinds=("A", "B"), payload=b"p" * 100)
    one = Outcome(
        "i" * 36, 3, "failed", b"r" * 300, failure, (ItemFailure(index=2, failure=failure),), "p", "äs", 1, 2, 3
    )
    task = Assignment("i" * 36, 1, "c" * 64, "fü" * 50, b"p" * 70, 5, 1.5, "cause")
    assert len(b"".join(wire.pack(protocol.Results((one,))))) <= wire.outcome_bytes(one)
    assert len(b"".join(wire.pack(protocol.Tasks.of((task,))))) <= wire.assignment_bytes(task)


def test_output_of_the_attempt_under_way_is_published_and_no_other() -> None:
    m = Machine()
    m.do(ready(), record(0, "a"))
    said = m.do(Heard("m1", protocol.Output((protocol.Piece("a", 1, 0, 2, "x\n"), protocol.Piece("b", 1, 0, 1, "y")))))
    assert [one.piece for one in said if isinstance(one, PublishOutput)] == [
        OutputPiece(id="a", attempt=1, start=0, end=2, text="x\n")
    ]
    m.do(ended("a"))
    said = m.do(Heard("m1", protocol.Output((protocol.Piece("a", 1, 2, 4, "z\n"),))))
    assert not [one for one in said if isinstance(one, PublishOutput)]


def test_a_task_that_waits_for_its_code_twice_in_one_turn_fails_once() -> None:
    m = Machine(code=False)
    m.do(ready())
    m.state.handle([record(0, "a"), CodeKnown("c0"), CodeGone("c0")], m.now())
    m.wait(CODE_PATIENCE + 1)
    assert m.result("a").status == "failed"
    m.state.check_invariants()
