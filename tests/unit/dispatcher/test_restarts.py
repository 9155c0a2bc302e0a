"""What a dispatcher knows of the time before it: what may start once, how often others began, what is long done."""

from __future__ import annotations

from tests.unit.dispatcher.world import AT_ONCE, VALUE_ERROR, Machine, died, ended, invocation, ready, record
from upon.dispatcher import protocol
from upon.dispatcher.decisions.instructions import (
    CancelAsked,
    Heard,
    IntentStored,
    ManagerGone,
    PastRead,
    PublishIntent,
    PublishStarted,
    RecordRead,
)
from upon.dispatcher.decisions.past import Past
from upon.dispatcher.protocol import Attempt
from upon.messages import Cause, InvocationBatch, Retry

ONCE = Retry(attempts=1, jitter=False)


def fired(id: str, at: int, **more: object) -> RecordRead:
    """A record with what a rule fired for an event that Kafka had at `at`."""
    cause = Cause(rule="r", rule_revision=1, event_id="e", event_type="t", event_source="/s", event_recorded=at)
    batch = InvocationBatch(site="s", group="g", invocations=(invocation(id, cause=cause, **more),))
    return RecordRead(0, 0, batch)


def past(since: int = 0, done: str = "", **starts: int) -> Past:
    made = Past(since, starts=starts)
    for id in done:
        made.done.add(id)
    return made


class TestWhatMayStartOnce:
    def test_it_is_sent_when_kafka_has_that_it_may_begin(self) -> None:
        m = Machine()
        m.do(ready(), record(0, invocation("a", retry=ONCE)))
        assert m.assigned() == []
        (intent,) = m.only(PublishIntent)
        assert (intent.started.id, intent.started.attempt, intent.started.started) == ("a", 1, 0)
        m.do(IntentStored("a", 1))
        assert m.assigned() == [("a", 1)]

    def test_a_lost_manager_may_have_begun_it(self) -> None:
        m = Machine()
        m.do(ready("m1"), record(0, invocation("a", retry=ONCE)), IntentStored("a", 1))
        m.do(ManagerGone("m1", "its connection broke"), ready("m2"))
        assert m.assigned("m2") == []
        failure = m.result("a").failure
        assert failure is not None
        assert failure.type == "WorkerLost"

    def test_a_manager_that_was_not_told_of_it_has_not(self) -> None:
        m = Machine()
        m.do(ready("m1"), record(0, invocation("a", retry=ONCE)))
        m.do(ManagerGone("m1", "its connection broke"), ready("m2"), IntentStored("a", 1), IntentStored("a", 2))
        assert m.assigned("m2") == [("a", 2)]

    def test_what_is_cancelled_meanwhile_is_not_sent(self) -> None:
        m = Machine()
        m.do(ready(), record(0, invocation("a", retry=ONCE)), CancelAsked(("a",)))
        m.do(ended("a", 1, "cancelled"), IntentStored("a", 1))
        assert m.assigned() == []
        assert m.result("a").status == "cancelled"

    def test_after_a_restart_it_does_not_begin_again(self) -> None:
        m = Machine(past=past(a=1))
        m.do(ready(), record(0, invocation("a", retry=ONCE)))
        m.wait(1)
        assert m.assigned() == []
        failure = m.result("a").failure
        assert failure is not None
        assert "under another dispatcher" in failure.message

    def test_a_manager_that_has_it_still_is_left_at_it(self) -> None:
        m = Machine(past=past(a=1), hold_until=102.0)
        m.do(record(0, invocation("a", retry=ONCE)), ready(held=(Attempt("a", 1),)))
        m.wait(2.5)
        assert m.results == {}
        m.do(ended("a"))
        assert (m.result("a").status, m.result("a").attempts) == ("succeeded", 1)

    def test_a_manager_has_time_to_say_so(self) -> None:
        m = Machine(past=past(a=1), hold_until=102.0)
        m.do(record(0, invocation("a", retry=ONCE)))
        m.wait(1)
        assert m.results == {}
        m.wait(1)
        assert m.result("a").status == "failed"


class TestStarts:
    """How often a task has begun counts over restarts: one that kills dispatchers as well does not go on for ever."""

    def test_a_death_is_said_in_kafka(self) -> None:
        m = Machine()
        m.do(ready(), record(0, "a"), died("a"))
        (said,) = m.only(PublishStarted)
        assert (said.started.id, said.started.attempt) == ("a", 1)

    def test_so_is_a_failure_that_is_tried_again(self) -> None:
        m = Machine()
        retry = Retry(attempts=3, on=("ValueError",), jitter=False)
        m.do(ready(), record(0, invocation("a", retry=retry)), ended("a", 1, "failed", failure=VALUE_ERROR))
        (said,) = m.only(PublishStarted)
        assert said.started.attempt == 1

    def test_what_was_said_while_it_ran_is_not_said_twice(self) -> None:
        m = Machine()
        m.do(ready(), record(0, "a"), Heard("m1", protocol.Started((protocol.Begun("a", 1, 5, 7),))), died("a"))
        assert len(m.only(PublishStarted)) == 1

    def test_starts_under_an_earlier_dispatcher_count(self) -> None:
        m = Machine(past=past(a=2))
        m.do(ready(), record(0, invocation("a", retry=AT_ONCE)))
        m.wait(1)
        assert m.assigned() == [("a", 1)], "the third of three"
        m.do(died("a"))
        assert m.result("a").status == "failed"
        assert m.result("a").attempts == 3

    def test_one_that_goes_on_counts_once(self) -> None:
        m = Machine(past=past(a=2))
        m.do(ready(held=(Attempt("a", 2),)), record(0, "a"), ended("a", 2))
        assert m.result("a").attempts == 2


class TestWhatIsLongDone:
    """An event that is read again says how old it is; results older than what is known are looked at first."""

    def test_it_waits_until_the_past_is_known(self) -> None:
        m = Machine(past=past(since=100))
        m.do(ready(), fired("a", 50))
        assert m.assigned() == []
        m.do(PastRead(past(done="b")))
        assert m.assigned() == [("a", 1)]

    def test_it_is_not_done_again(self) -> None:
        m = Machine(past=past(since=100))
        m.do(ready(), fired("a", 50), PastRead(past(done="a")))
        assert m.assigned() == []
        assert m.results == {}
        assert m.state.book.offsets.position(0) == 1, "its record is settled"

    def test_nor_what_comes_later(self) -> None:
        m = Machine(past=past(since=100))
        m.do(ready(), PastRead(past(done="a")), fired("a", 50))
        assert m.assigned() == []

    def test_a_young_one_waits_for_nothing(self) -> None:
        m = Machine(past=past(since=100))
        m.do(ready(), fired("a", 150))
        assert m.assigned() == [("a", 1)]

    def test_it_can_be_cancelled_meanwhile(self) -> None:
        m = Machine(past=past(since=100))
        m.do(fired("a", 50), CancelAsked(("a",)))
        assert m.results == {}, "it may be done"
        m.do(PastRead(past(done="b")))
        assert m.result("a").status == "cancelled"

    def test_a_cancel_of_what_was_done_makes_no_second_result(self) -> None:
        for first in (True, False):
            m = Machine(past=past(since=100))
            asked, read = CancelAsked(("a",)), fired("a", 50)
            m.do(*((asked, read) if first else (read, asked)), PastRead(past(done="a")))
            assert m.results == {}

    def test_a_cancel_reaches_the_manager_that_turns_out_to_have_it(self) -> None:
        m = Machine(past=past(since=100))
        m.do(fired("a", 50), CancelAsked(("a",)))
        m.do(ready(held=(Attempt("a", 1),)))
        assert m.sent(protocol.Cancel)[0].attempts == (Attempt("a", 1),)
