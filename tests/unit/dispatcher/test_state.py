"""What the dispatcher decides, one input after the other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.dispatcher.world import VALUE_ERROR, Machine, died, ended, invocation, ready, record
from upon.dispatcher import protocol
from upon.dispatcher.decisions.instructions import (
    BadRecordRead,
    CancelAsked,
    CodeKnown,
    Commit,
    Heard,
    LetterStored,
    ManagerGone,
    Pause,
    PublishLetter,
    PublishResult,
    PublishStarted,
    Resume,
    SendCode,
)
from upon.dispatcher.decisions.past import Past
from upon.dispatcher.decisions.tasks import MAX_UNSTARTED_LOSSES
from upon.dispatcher.decisions.waiting import Depths
from upon.dispatcher.protocol import Attempt
from upon.messages import DeadLetter, Invocation, Retry


def commits(machine: Machine) -> list[dict[int, int]]:
    return [c.offsets for c in machine.only(Commit)]


class TestTheWayOfOneTask:
    def test_from_record_to_commit(self) -> None:
        m = Machine()
        m.do(record(7, "a"), ready())
        assert m.only(SendCode) == [SendCode("m1", "c0")]
        assert m.assigned() == [("a", 1)]
        m.do(ended("a", payload=b"m\x01", started=1, finished=2, pid=9, preview="1"))
        result = m.result("a")
        assert (result.status, result.payload, result.worker, result.group) == ("succeeded", b"m\x01", "m1/9", "g")
        assert (result.attempts, result.preview, result.timings.submitted) == (1, "1", 5)
        assert not commits(m)
        m.store("a")
        assert commits(m) == [{0: 8}]
        assert m.sent(protocol.Stored) == [protocol.Stored((Attempt("a", 1),))]

    def test_code_goes_before_tasks_and_once(self) -> None:
        m = Machine()
        m.do(ready(slots=2), record(0, "a"))
        assert [type(i).__name__ for i in m.said if not isinstance(i, Commit)][-2:] == ["SendCode", "Send"]
        m.do(record(1, "b"))
        assert m.only(SendCode) == []

    def test_code_that_is_warm_is_not_sent(self) -> None:
        m = Machine()
        m.do(ready(warm=("c0",)), record(0, "a"))
        assert m.only(SendCode) == []
        assert m.assigned() == [("a", 1)]

    def test_a_manager_that_needs_code_gets_it(self) -> None:
        m = Machine()
        m.do(ready(), Heard("m1", protocol.Need(("c0", "unknown"))))
        assert m.only(SendCode) == [SendCode("m1", "c0")]

    def test_a_slow_task_is_said_to_have_started(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready(), Heard("m1", protocol.Started((protocol.Begun("a", 1, 77, 9),))))
        (started,) = m.only(PublishStarted)
        assert (started.started.id, started.started.started, started.started.worker) == ("a", 77, "m1/9")
        m.do(Heard("m1", protocol.Started((protocol.Begun("a", 1, 77, 9),))))
        assert m.only(PublishStarted) == []

    def test_one_big_payload_a_message(self) -> None:
        m = Machine()
        big = bytes(protocol.BATCH_BYTES)
        m.do(ready(slots=2), record(0, invocation("a", payload=big), invocation("b", payload=big)))
        assert [len(t.assignments) for t in m.sent(protocol.Tasks)] == [1, 1]


class TestDuplicatesAndOffsets:
    def test_a_duplicate_in_work_is_not_run_and_holds_its_offset(self) -> None:
        m = Machine()
        m.do(ready(slots=4), record(0, "a"), record(1, "a"))
        assert m.assigned() == [("a", 1)]
        m.do(ended("a"))
        assert commits(m) == []
        m.store("a")
        assert commits(m) == [{0: 2}]

    def test_a_duplicate_of_what_is_done_is_passed_over(self) -> None:
        past = Past()
        past.done.add("a")
        m = Machine(past=past)
        m.do(ready(), record(0, "a"))
        assert m.assigned() == []
        assert commits(m) == [{0: 1}]

    def test_twice_in_one_record(self) -> None:
        m = Machine()
        m.do(ready(slots=4), record(0, "a", "a"))
        assert m.assigned() == [("a", 1)]
        m.do(ended("a"))
        m.store("a")
        assert commits(m) == [{0: 1}]

    def test_commit_waits_for_the_lowest(self) -> None:
        m = Machine()
        m.do(ready(slots=4), record(0, "a"), record(1, "b"), record(2), ended("b"))
        m.store("b")
        assert commits(m) == [{0: 0}], "and beyond it b is settled"
        beyond = m.state.book.offsets.beyond(0, 9)
        assert [beyond.settled(offset) for offset in range(4)] == [False, True, True, False]
        m.do(ended("a"))
        m.store("a")
        assert commits(m) == [{0: 3}]

    def test_a_record_read_twice_counts_once(self) -> None:
        m = Machine()
        m.do(ready(), record(0, "a"), ended("a"))
        m.store("a")
        m.do(record(0, "a", "b"))
        assert m.assigned() == []

    def test_a_bad_record_is_a_dead_letter_before_its_offset_is_committed(self) -> None:
        m = Machine()
        letter = DeadLetter(id="d", origin="t/0/3", part="dispatcher", reason="r")
        m.do(BadRecordRead(0, 3, letter))
        assert m.only(PublishLetter) == [PublishLetter(letter, 0, 3)]
        assert commits(m) == [{0: 3}]
        m.do(LetterStored(0, 3))
        assert commits(m) == [{0: 4}]


class TestLosses:
    def test_a_killed_worker_is_tried_again_then_told_as_a_story(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready())
        for attempt in (1, 2):
            m.do(died("a", attempt))
            assert m.assigned() == [("a", attempt + 1)]
        m.do(died("a", 3, story="worker 4 exited with code 3"))
        result = m.result("a")
        assert result.status == "failed"
        assert result.attempts == 3
        assert result.failure is not None
        assert result.failure.type == "WorkerLost"
        assert "UponError" in result.failure.kinds
        lines = result.failure.traceback.splitlines()
        assert len(lines) == 3
        assert lines[0].startswith("attempt 1 on m1/4 at 1970-01-01T00:00:00.000Z: worker 4 was killed")
        assert lines[2].endswith("exited with code 3")

    def test_no_retry_when_the_policy_does_not_name_it(self) -> None:
        m = Machine()
        m.do(record(0, invocation("a", retry=Retry(on=("OSError",)))), ready(), died("a"))
        assert m.result("a").status == "failed"

    @pytest.mark.parametrize("name", ["WorkerLost", "TaskError", "UponError", "Exception"])
    def test_a_base_class_covers_it(self, name: str) -> None:
        m = Machine()
        m.do(record(0, invocation("a", retry=Retry(on=(name,), jitter=False))), ready())
        m.do(died("a"))
        assert m.assigned() == [("a", 2)]

    def test_a_manager_that_is_gone_gives_its_tasks_to_another_at_once_and_in_order(self) -> None:
        m = Machine()
        m.do(ready("m1", slots=2), record(0, "a", "b"), ready("m2", slots=4), record(1, "c", "d", "e", "f"))
        m.do(ManagerGone("m1", "its connection broke"))
        assert m.assigned("m2")[:2] == [("a", 2), ("b", 2)]

    def test_what_waited_at_a_lost_manager_has_not_used_up_an_attempt(self) -> None:
        m = Machine()
        m.do(record(0, invocation("a", retry=Retry(attempts=2, jitter=False))), ready("m1"))
        m.do(ManagerGone("m1", "its connection broke"), ready("m2"))
        assert m.assigned("m2") == [("a", 2)]
        m.do(died("a", 2, "m2"))
        assert m.assigned("m2") == [("a", 3)], "it has begun once"
        m.do(ended("a", 3, manager="m2"))
        assert m.result("a").attempts == 2

    def test_what_ran_at_a_lost_manager_has(self) -> None:
        m = Machine()
        m.do(record(0, invocation("a", retry=Retry(attempts=1))), ready())
        m.do(Heard("m1", protocol.Started((protocol.Begun("a", 1, 1, 9),))), ManagerGone("m1", "broke"))
        assert m.result("a").failure.type == "WorkerLost"  # type: ignore[union-attr]

    def test_a_task_that_never_begins_and_loses_every_manager_fails_in_the_end(self) -> None:
        m = Machine()
        m.do(record(0, "a"))
        for number in range(MAX_UNSTARTED_LOSSES + 1):
            m.do(ready(f"m{number}"), ManagerGone(f"m{number}", "broke"))
        assert m.result("a").failure.type == "WorkerLost"  # type: ignore[union-attr]

    def test_silence_is_loss(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready("m1"))
        m.wait(protocol.BEAT)
        m.do(ready("m2"))
        m.wait(protocol.LOST_AFTER - protocol.BEAT)
        assert m.assigned("m2") == [("a", 2)]

    def test_a_heartbeat_is_answered(self) -> None:
        m = Machine()
        m.do(ready("m1"))
        m.do(Heard("m1", protocol.Heartbeat(0)))
        assert m.sent(protocol.Beat) == [protocol.Beat(True, "t")]

    def test_a_heartbeat_keeps_a_manager(self) -> None:
        m = Machine()
        m.do(ready("m1"))
        for _ in range(5):
            m.wait(2.0)
            m.do(Heard("m1", protocol.Heartbeat(1, (5, 6))))
        assert m.state.book.managers["m1"].workers == (5, 6)

    def test_bye_blames_nobody(self) -> None:
        m = Machine()
        m.do(record(0, invocation("a", retry=Retry(attempts=2, jitter=False))), ready())
        m.do(Heard("m1", protocol.Started((protocol.Begun("a", 1, 1, 9),))), Heard("m1", protocol.Bye("stop")))
        m.do(ready("m2"))
        assert m.assigned("m2") == [("a", 2)]
        m.do(died("a", 2, "m2"))
        assert m.assigned("m2") == [("a", 3)], "one start was nobody's fault"


class TestRetries:
    def test_backoff(self) -> None:
        m = Machine()
        policy = Retry(attempts=3, on=("ValueError",), initial=2.0, factor=3.0, jitter=False)
        m.do(record(0, invocation("a", retry=policy)), ready(), ended("a", 1, "failed", failure=VALUE_ERROR))
        assert m.sent(protocol.Stored) == [protocol.Stored((Attempt("a", 1),))]
        m.wait(1.9)
        m.do(Heard("m1", protocol.Heartbeat(0)))
        assert m.assigned() == []
        m.wait(0.2)
        assert m.assigned() == [("a", 2)]
        m.do(ended("a", 2, "failed", failure=VALUE_ERROR), Heard("m1", protocol.Heartbeat(0)))
        deadline = m.state.book.alarms[0][0]
        assert deadline == pytest.approx(m.mono + 6.0)
        for _ in range(4):
            m.wait(2.0)
            m.do(Heard("m1", protocol.Heartbeat(0)))
        m.do(ended("a", 3, "failed", failure=VALUE_ERROR))
        assert m.result("a").failure == VALUE_ERROR
        assert m.result("a").attempts == 3

    def test_an_exception_the_policy_does_not_name_is_final(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready(), ended("a", 1, "failed", failure=VALUE_ERROR))
        assert m.result("a").failure == VALUE_ERROR


class TestLateWords:
    def lost_and_found(self) -> Machine:
        m = Machine()
        m.do(record(0, "a"), ready("m1"), ManagerGone("m1", "broke"), ready("m2"))
        assert m.assigned("m2") == [("a", 2)]
        m.do(Heard("m1", protocol.Heartbeat(1)))
        assert m.sent(protocol.Beat, "m1") == [protocol.Beat(False, "t")]
        return m

    def test_a_manager_that_comes_back_too_late_is_told_to_stop(self) -> None:
        m = self.lost_and_found()
        m.do(ready("m1", held=(Attempt("a", 1),)))
        assert m.sent(protocol.Cancel, "m1") == [protocol.Cancel((Attempt("a", 1),))]

    def test_a_late_success_wins_and_the_other_is_stopped(self) -> None:
        m = self.lost_and_found()
        m.do(ready("m1", held=(Attempt("a", 1),)), ended("a", 1, payload=b"first"))
        assert m.sent(protocol.Cancel, "m2") == [protocol.Cancel((Attempt("a", 2),))]
        m.do(ended("a", 2, manager="m2", payload=b"second"))
        assert m.result("a").payload == b"first"
        m.store("a")
        assert m.sent(protocol.Stored, "m1") == [protocol.Stored((Attempt("a", 1),))]
        assert m.sent(protocol.Stored, "m2") == [protocol.Stored((Attempt("a", 2),))]

    def test_the_last_words_of_a_manager_that_is_gone_count(self) -> None:
        m = self.lost_and_found()
        m.do(ended("a", 1, payload=b"first"))
        assert m.result("a").payload == b"first"
        assert m.sent(protocol.Cancel, "m2") == [protocol.Cancel((Attempt("a", 2),))]

    def test_a_failure_told_before_ready_waits_for_it(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ended("a", 1, "failed", failure=VALUE_ERROR))
        assert not m.results
        m.do(ready(held=(Attempt("a", 1),)), ended("a", 1, "failed", failure=VALUE_ERROR))
        assert m.result("a").failure == VALUE_ERROR

    def test_a_late_failure_is_dropped(self) -> None:
        m = self.lost_and_found()
        m.do(ready("m1", held=(Attempt("a", 1),)), ended("a", 1, "failed", failure=VALUE_ERROR))
        assert m.sent(protocol.Stored, "m1") == [protocol.Stored((Attempt("a", 1),))]
        m.do(died("a", 1))
        m.do(ended("a", 2, manager="m2"))
        assert m.result("a").status == "succeeded"

    def test_a_manager_that_comes_back_in_time_keeps_its_task(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready("m1"), ManagerGone("m1", "broke"))
        m.do(ready("m1", held=(Attempt("a", 1),)))
        assert m.assigned() == []
        m.do(ended("a", 1))
        assert m.result("a").status == "succeeded"

    def test_an_outcome_of_what_is_done_is_acknowledged(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready(), ended("a"))
        m.store("a")
        m.do(ended("a"))
        assert m.sent(protocol.Stored) == [protocol.Stored((Attempt("a", 1),))]
        assert len(m.results["a"]) == 1


class TestARestartedDispatcher:
    def test_what_a_manager_still_runs_is_left_there(self) -> None:
        m = Machine()
        m.do(ready(slots=2, held=(Attempt("a", 4),)), record(0, "a", "b"))
        assert m.assigned() == [("b", 1)]
        m.do(ended("a", 4, payload=b"x"))
        assert m.result("a").payload == b"x"

    def test_what_a_manager_finished_meanwhile_is_taken(self) -> None:
        m = Machine()
        m.do(ready(held=(Attempt("a", 4),)), ended("a", 4, payload=b"x"), record(0, "a"))
        assert m.assigned() == []
        assert m.result("a").payload == b"x"

    def test_an_early_failure_is_retried_by_policy(self) -> None:
        m = Machine()
        retried = invocation("a", retry=Retry(on=("ValueError",), jitter=False))
        m.do(ready(held=(Attempt("a", 1),)), ended("a", 1, "failed", failure=VALUE_ERROR), record(0, retried))
        assert m.assigned() == [("a", 2)]

    def test_nothing_is_placed_before_managers_could_claim(self) -> None:
        m = Machine(hold_until=101.0)
        m.do(record(0, "a"), ready())
        assert m.assigned() == []
        assert m.state.deadline() is not None
        m.wait(1.0)
        assert m.assigned() == [("a", 1)]

    def test_the_claim_of_a_manager_that_goes_is_void(self) -> None:
        m = Machine()
        m.do(ready("m1", held=(Attempt("a", 1),)), ManagerGone("m1", "broke"), ready("m2"), record(0, "a"))
        assert m.assigned("m2") == [("a", 1)]

    def test_held_and_done_is_stopped_and_forgotten(self) -> None:
        past = Past()
        past.done.add("a")
        m = Machine(past=past)
        m.do(ready(held=(Attempt("a", 1),)))
        assert m.sent(protocol.Cancel) == [protocol.Cancel((Attempt("a", 1),))]
        assert m.sent(protocol.Stored) == [protocol.Stored((Attempt("a", 1),))]


class TestCode:
    def test_code_that_comes_later(self) -> None:
        m = Machine(code=False)
        m.do(ready(), record(0, "a"))
        assert m.assigned() == []
        m.wait(1.0)
        m.do(CodeKnown("c0"))
        assert m.assigned() == [("a", 1)]

    def test_code_that_never_comes(self) -> None:
        m = Machine(code=False)
        m.do(record(0, "a"))
        assert m.state.deadline() == pytest.approx(115.0)
        m.wait(15.0)
        failed = m.result("a").failure
        assert failed is not None
        assert failed.type == "FunctionNotFound"
        assert "register the function again" in failed.message


class TestCancel:
    def test_queued(self) -> None:
        m = Machine()
        m.do(record(0, "a"), CancelAsked(("a",)))
        assert m.result("a").status == "cancelled"
        assert m.result("a").failure.type == "TaskCancelled"  # type: ignore[union-attr]

    def test_without_code(self) -> None:
        m = Machine(code=False)
        m.do(record(0, "a"), CancelAsked(("a",)))
        assert m.result("a").status == "cancelled"
        m.wait(20.0)
        assert len(m.results["a"]) == 1

    def test_running_is_asked_of_the_manager_once(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready(), CancelAsked(("a",)))
        assert m.sent(protocol.Cancel) == [protocol.Cancel((Attempt("a", 1),))]
        assert not m.only(PublishResult)
        m.do(CancelAsked(("a",)))
        assert m.sent(protocol.Cancel) == []
        m.do(ended("a", 1, "cancelled"))
        assert m.result("a").status == "cancelled"

    def test_a_result_that_arrives_anyway_wins(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready(), CancelAsked(("a",)), ended("a", 1, payload=b"x"))
        assert m.result("a").status == "succeeded"

    def test_a_cancelled_task_is_not_tried_again(self) -> None:
        m = Machine()
        m.do(record(0, "a", "b"), ready(slots=2), CancelAsked(("a", "b")), died("a"))
        assert m.result("a").status == "cancelled"
        m.do(ManagerGone("m1", "broke"))
        assert m.result("b").status == "cancelled"

    def test_before_its_invocation(self) -> None:
        m = Machine()
        m.do(ready(), CancelAsked(("a",)), record(0, "a"))
        assert m.assigned() == []
        assert m.result("a").status == "cancelled"

    def test_unless_it_has_begun_is_asked_of_the_manager(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready(), CancelAsked(("a",), running=False))
        assert m.sent(protocol.Cancel) == [protocol.Cancel((Attempt("a", 1),), running=False)]
        m.do(CancelAsked(("a",), running=False))
        assert m.sent(protocol.Cancel) == []
        m.do(CancelAsked(("a",)))
        assert m.sent(protocol.Cancel) == [protocol.Cancel((Attempt("a", 1),))]

    def test_unless_it_has_begun_leaves_alone_what_runs(self) -> None:
        m = Machine()
        retried = invocation("a", retry=Retry(attempts=2, on=("ValueError",), jitter=False))
        m.do(
            record(0, retried),
            ready(),
            CancelAsked(("a",), running=False),
            Heard("m1", protocol.Started((protocol.Begun("a", 1, 1, 9),))),
        )
        m.do(CancelAsked(("a",), running=False))
        assert m.sent(protocol.Cancel) == []
        m.do(ended("a", 1, "failed", failure=VALUE_ERROR))
        assert not m.results
        assert m.assigned() == [("a", 2)]

    @pytest.mark.parametrize("running", [True, False])
    def test_unless_it_has_begun_before_its_invocation(self, running: bool) -> None:
        m = Machine()
        m.do(CancelAsked(("a", "b"), running), ready("m1", held=(Attempt("a", 1),)), record(0, "a", "b"))
        assert m.sent(protocol.Cancel) == [protocol.Cancel((Attempt("a", 1),), running=running)]
        assert ("a" in m.results) == running
        assert m.result("b").status == "cancelled"

    def test_it_is_remembered_for_a_while_only(self) -> None:
        m = Machine()
        m.do(CancelAsked(("a",)))
        m.wait(3601.0)
        m.do(ready(), record(0, "a"))
        assert m.assigned() == [("a", 1)]

    def test_what_is_done_stays_as_it_is(self) -> None:
        m = Machine()
        m.do(record(0, "a"), ready(), ended("a"), CancelAsked(("a",)))
        m.store("a")
        m.do(CancelAsked(("a",)))
        assert m.result("a").status == "succeeded"
        assert not m.state.book.cancels


class TestBounds:
    def test_by_count(self) -> None:
        m = Machine(max_tasks=4)
        m.do(record(0, *"abcd"))
        assert m.only(Pause) == []
        m.do(record(1, "e"))
        assert m.only(Pause) == [Pause()]
        m.do(ready(slots=1), *(ended(id) for id in "abc"))
        assert m.only(Resume) == []
        m.store("a", "b", "c")
        assert m.only(Resume) == [Resume()]

    def test_there_is_room_for_what_every_slot_can_do(self) -> None:
        m = Machine(max_tasks=4)
        m.do(ready(slots=4), record(0, *"abcdefgh"))
        assert m.only(Pause) == []
        m.do(record(1, "i"))
        assert m.only(Pause) == [Pause()]

    def test_by_bytes_of_results_too(self) -> None:
        m = Machine(max_bytes=100)
        m.do(record(0, "a"), ready(), ended("a", payload=bytes(101)))
        assert m.only(Pause) == [Pause()]
        m.store("a")
        assert m.only(Resume) == [Resume()]


class TestRetriesTakeTurns:
    """A task that is tried again goes behind those that wait: it has had its turn."""

    @staticmethod
    def failing(id: str, **more: Any) -> Invocation:
        return invocation(id, retry=Retry(attempts=400, on=("ValueError", "WorkerLost"), jitter=False, **more))

    def test_a_failure_does_not_keep_the_slot(self) -> None:
        m = Machine(depths=Depths(prefetch=0, horizon=0))
        m.do(ready(), record(0, self.failing("bad")), record(1, "good"))
        m.do(ended("bad", 1, "failed", failure=VALUE_ERROR))
        assert m.assigned() == [("good", 1)]
        m.do(ended("good"))
        assert m.assigned() == [("bad", 2)]

    def test_nor_does_one_whose_worker_died(self) -> None:
        m = Machine(depths=Depths(prefetch=0, horizon=0))
        m.do(ready(), record(0, self.failing("bad")), record(1, "good"))
        m.do(died("bad"))
        assert m.assigned() == [("good", 1)]

    def test_nor_does_one_whose_wait_is_over(self) -> None:
        m = Machine(depths=Depths(prefetch=0, horizon=0))
        m.do(ready(), record(0, self.failing("bad", initial=1.0)), record(1, "busy"), record(2, "good"))
        m.do(ended("bad", 1, "failed", failure=VALUE_ERROR))
        m.wait(2.0)
        m.do(ended("busy"))
        assert m.assigned() == [("good", 1)]

    def test_what_had_not_begun_keeps_its_place_when_its_manager_dies(self) -> None:
        m = Machine(depths=Depths(prefetch=1, horizon=0))
        m.do(ready(), record(0, "a", "b", "c"))
        m.do(Heard("m1", protocol.Started((protocol.Begun("a", 1, 5, 7),))), ManagerGone("m1", "is dead"))
        assert [task.id for task in sorted(m.state.book.ready, key=lambda task: task.order)] == ["b", "c", "a"]


def test_a_site_has_a_timeout_for_tasks_that_name_none() -> None:
    m = Machine(timeout=60.0)
    m.do(ready(slots=2), record(0, "none", invocation("own", timeout=5.0)))
    sent = [a for tasks in m.sent(protocol.Tasks) for a in tasks.assignments]
    assert {a.id: a.timeout for a in sent} == {"none": 60.0, "own": 5.0}
