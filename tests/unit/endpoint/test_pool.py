"""The pool, event by event: what it answers."""

from __future__ import annotations

import pytest

from upon.dispatcher.protocol import STARTED_AFTER, Assignment
from upon.endpoint.channel import Began, Code, Done, Retire, Task, Up
from upon.endpoint.decisions.endings import exit_story
from upon.endpoint.decisions.instructions import Back, Died, Ended, Fork, Give, Instruction, Kill, Lack, Reclaim, Slow
from upon.endpoint.decisions.pool import FIRST_WAIT, Pool


def pool(slots: int = 1) -> Pool:
    made = Pool(slots)
    made.start()
    for number in made.workers:
        made.heard(number, [Up(4000 + number)], 0.0)
    made.code(Code("c", b""), 0.0)
    return made


def task(id: str, timeout: float = 0.0, code: str = "c") -> Assignment:
    return Assignment(id, 1, code, "f", b"", 0, timeout)


def kinds(instructions: list[Instruction]) -> list[type[Instruction]]:
    return [type(one) for one in instructions]


def given(instructions: list[Instruction]) -> dict[int, list[int]]:
    return {one.worker: one.seqs for one in instructions if isinstance(one, Give)}


def test_code_goes_once_and_before_its_first_task() -> None:
    made = pool()
    (first,) = made.assign([task("a")], 0.0)
    assert isinstance(first, Give)
    assert [type(message) for message in first.messages] == [Code, Task]
    made.heard(1, [Began(0, 1), Done(0, 1, 2)], 0.0)
    (second,) = made.assign([task("b")], 0.0)
    assert isinstance(second, Give)
    assert [type(message) for message in second.messages] == [Task]


def test_unknown_code_is_asked_for_once_and_its_tasks_wait() -> None:
    made = pool()
    assert made.assign([task("a", code="new"), task("b", code="new")], 0.0) == [Lack("new")]
    assert made.lacking() == ["new"]
    (give,) = made.code(Code("new", b""), 0.0)
    assert given([give]) == {1: [0, 1]}


def test_a_task_that_waits_for_its_code_keeps_its_place() -> None:
    made = pool()
    made.assign([task("first", code="new"), task("later"), task("latest")], 0.0)
    (give,) = made.code(Code("new", b""), 0.0)
    assert isinstance(give, Give)
    assert [one.code for one in give.messages if isinstance(one, Task)] == ["new", "c", "c"]


def test_what_waits_behind_a_task_without_code_goes_on_when_that_is_taken_away() -> None:
    made = pool()
    assert made.assign([task("a", code="gone"), task("b")], 0.0) == [Lack("gone")]
    ended, give = made.cancel("a", 0.0)
    assert isinstance(ended, Ended)
    assert given([give]) == {1: [0]}
    made.heard(1, [Began(0, 1), Done(0, 1, 2)], 0.0)
    assert made.assign([task("c", code="gone"), task("d")], 0.0) == [Lack("gone")]
    back, give = made.give_back(["c"], 0.0)
    assert isinstance(back, Back)
    assert given([give]) == {1: [1]}
    assert made.lacking() == []


def test_a_task_behind_a_long_one_moves_to_an_idle_worker_though_the_next_waits_for_its_code() -> None:
    made = pool(2)
    made.assign([task(id) for id in "abc"], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    made.assign([task("d", code="new"), task("e")], 0.0)
    assert Reclaim(1) in made.heard(2, [Began(0, 1), Done(0, 1, 2)], 0.0)
    assert given(made.reclaimed(1, {1}, 0.0)) == {2: [1]}


def test_tasks_are_spread_before_they_queue() -> None:
    made = pool(2)
    assert given(made.assign([task("a"), task("b")], 0.0)) == {1: [0], 2: [0]}


def test_a_worker_with_a_long_task_gets_nothing_ahead() -> None:
    made = pool()
    made.assign([task("a")], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    assert made.assign([task("b")], 5.0) == []
    assert given(made.heard(1, [Done(0, 1, 2)], 6.0)) == {1: [1]}


def test_what_waits_behind_a_task_moves_to_an_idle_worker() -> None:
    made = pool(2)
    made.assign([task(id) for id in "abcd"], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    out = made.heard(2, [Began(0, 1), Done(0, 1, 2), Began(1, 2), Done(1, 2, 3)], 0.0)
    assert Reclaim(1) in out
    assert given(made.reclaimed(1, {1}, 0.0)) == {2: [2]}


def test_a_task_over_its_timeout_costs_its_worker_and_says_so() -> None:
    made = pool()
    made.assign([task("a", timeout=2.0), task("b")], 0.0)
    made.heard(1, [Began(0, 10**9)], 10.0)
    assert made.wake_at == 10.0 + STARTED_AFTER
    assert kinds(made.tick(10.1)) == [Slow]
    assert made.wake_at == 12.0
    assert made.tick(12.0) == [Reclaim(1), Kill(1)]
    assert made.reclaimed(1, {1}, 12.0) == []
    ended, fork = made.exited(1, -9, "printed", 12.5)
    assert isinstance(ended, Ended)
    outcome = ended.outcome
    assert (outcome.id, outcome.status, outcome.stdout, outcome.pid) == ("a", "failed", "printed", 4001)
    assert (outcome.started, outcome.finished) == (10**9, 3_500_000_000)
    assert outcome.failure is not None
    assert outcome.failure.type == "TaskTimeout"
    assert "ran for 2.5 s and its timeout is 2 s" in outcome.failure.message
    assert fork == Fork(2)
    assert [one.id for one in made.queue] == ["b"]


def test_a_worker_that_does_not_end_is_replaced_and_its_end_is_nothing_new() -> None:
    """A manager that gives a worker up says that it has exited."""
    made = pool()
    made.assign([task("a", timeout=1.0), task("b")], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    made.tick(1.0)
    made.reclaimed(1, {1}, 1.0)
    ended, fork = made.exited(1, -9, "", 11.0)
    assert isinstance(ended, Ended)
    assert ended.outcome.failure is not None
    assert ended.outcome.failure.type == "TaskTimeout"
    assert fork == Fork(2)
    assert given(made.heard(2, [Up(4002)], 11.1)) == {2: [0]}
    assert made.heard(1, [Done(0, 1, 2)], 60.0) == made.exited(1, -9, "", 60.0) == []


def test_a_result_that_came_before_the_kill_counts() -> None:
    made = pool()
    made.assign([task("a", timeout=1.0)], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    made.tick(1.0)
    (ended,) = made.heard(1, [Done(0, 1, 2)], 1.0)
    assert isinstance(ended, Ended)
    assert ended.outcome.status == "succeeded"
    assert made.exited(1, -9, "", 1.1) == [Fork(2)]


def test_the_next_task_of_a_killed_worker_is_not_the_one_that_timed_out() -> None:
    made = pool()
    made.assign([task("a", timeout=1.0), task("b")], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    made.tick(1.0)
    made.heard(1, [Done(0, 1, 2), Began(1, 2)], 1.0)
    died, _ = made.exited(1, -9, "", 1.1)
    assert isinstance(died, Died)
    assert died.death.id == "b"
    assert "because of the task before" in died.death.story


def test_a_task_that_began_in_a_dying_worker_keeps_nobody_awake_and_can_be_cancelled() -> None:
    made = pool()
    made.assign([task("a"), task("b", timeout=0.5)], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    made.cancel("a", 0.0)
    made.heard(1, [Done(0, 1, 2), Began(1, 2)], 0.0)
    made.tick(3.0)
    assert made.wake_at == float("inf")
    assert made.cancel("b", 3.0) == []
    ended, _ = made.exited(1, -9, "", 3.1)
    assert isinstance(ended, Ended)
    assert (ended.outcome.id, ended.outcome.status) == ("b", "cancelled")


def test_a_worker_killed_from_outside_loses_what_ran_and_nothing_else() -> None:
    made = pool()
    made.assign([task("a"), task("b"), task("c")], 0.0)
    made.heard(1, [Began(0, 7)], 0.0)
    died, fork = made.exited(1, -11, "Fatal Python error", 1.0)
    assert isinstance(died, Died)
    assert (died.death.id, died.death.exitcode, died.death.started) == ("a", -11, 7)
    assert "worker 4001 was killed by SIGSEGV" in died.death.story
    assert "Fatal Python error" in died.death.story
    assert fork == Fork(2)
    assert [one.id for one in made.queue] == ["b", "c"], "in their order, in front"
    assert given(made.heard(2, [Up(4002)], 1.0)) == {2: [0, 1]}


def test_cancel_of_what_waits_what_is_ahead_and_what_runs() -> None:
    made = pool()
    made.assign([task("a"), task("b")], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    made.assign([task("c")], 5.0)
    (waiting,) = made.cancel("c", 5.0)
    assert isinstance(waiting, Ended)
    assert waiting.outcome.status == "cancelled"
    assert made.cancel("b", 5.0) == [Reclaim(1)]
    (ahead,) = made.reclaimed(1, {1}, 5.0)
    assert isinstance(ahead, Ended)
    assert ahead.outcome.id == "b"
    assert made.cancel("a", 5.0) == [Reclaim(1), Kill(1)]
    running, _ = made.exited(1, -9, "", 6.0)
    assert isinstance(running, Ended)
    assert running.outcome.status == "cancelled"
    assert running.outcome.failure is not None
    assert "after it had run for 6.0 s" in running.outcome.failure.message
    assert made.cancel("nobody", 6.0) == []


def test_a_cancelled_task_that_has_just_begun_is_killed_when_that_is_heard() -> None:
    made = pool()
    made.assign([task("a")], 0.0)
    assert made.cancel("a", 0.0) == [Reclaim(1)]
    assert made.reclaimed(1, frozenset(), 0.0) == []
    assert made.heard(1, [Began(0, 1)], 0.0) == [Reclaim(1), Kill(1)]


def test_cancel_of_what_has_not_begun_leaves_alone_what_has() -> None:
    made = pool()
    made.assign([task("a"), task("b")], 0.0)
    assert made.cancel("a", 0.0, running=False) == [Reclaim(1)]
    assert made.cancel("b", 0.0, running=False) == [Reclaim(1)]
    assert made.heard(1, [Began(0, 1)], 0.0) == [], "a had begun"
    (ahead,) = made.reclaimed(1, {1}, 0.0)
    assert isinstance(ahead, Ended)
    assert (ahead.outcome.id, ahead.outcome.status) == ("b", "cancelled")
    assert made.cancel("a", 1.0, running=False) == []
    assert made.cancel("a", 1.0) == [Reclaim(1), Kill(1)]


def test_workers_that_die_at_their_start_are_started_with_waits_that_double() -> None:
    made = Pool(1)
    made.start()
    waits = []
    now = 0.0
    for number in range(1, 5):
        assert made.exited(number, 1, "", now) == []
        waits.append(made.wake_at - now)
        now = made.wake_at
        assert made.tick(now) == [Fork(number + 1)]
    assert waits == pytest.approx([FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, 8 * FIRST_WAIT])


def test_nonsense_of_a_worker_costs_the_worker() -> None:
    made = pool()
    made.assign([task("a")], 0.0)
    assert made.heard(1, [Done(0, 1, 2)], 0.0) == [Reclaim(1), Kill(1)]
    assert made.exited(1, -9, "", 0.0) == [Fork(2)]
    assert [one.id for one in made.queue] == ["a"]


def test_a_worker_that_retires_has_done_its_task_and_loses_none() -> None:
    made = pool()
    made.assign([task("a"), task("b")], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    ended, *rest = made.heard(1, [Done(0, 1, 2, b"m"), Retire("left 1 threads running")], 0.0)
    assert isinstance(ended, Ended)
    assert (ended.outcome.id, ended.outcome.status) == ("a", "succeeded")
    assert rest == [Reclaim(1), Kill(1)]
    assert made.reclaimed(1, {1}, 0.0) == []
    assert made.exited(1, 0, "", 0.0) == [Fork(2)]
    assert [one.id for one in made.queue] == ["b"]


def test_stop_kills_all_and_starts_nothing() -> None:
    made = pool(2)
    made.assign([task(id) for id in "abcdef"], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    assert kinds(made.stop()) == [Reclaim, Reclaim, Reclaim, Kill, Reclaim, Kill]
    (death,) = made.killed(1.0)
    assert isinstance(death, Died)
    assert (death.death.id, death.death.blame) == ("a", False)
    assert not any(isinstance(one, Fork) for one in made.exited(1, -9, "", 0.0) + made.exited(2, -9, "", 0.0))


def test_what_waits_is_given_back_when_the_pool_drains() -> None:
    made = pool(1)
    made.assign([task(id) for id in "abc"], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    assert kinds(made.drain()) == [Reclaim]
    (back,) = made.reclaimed(1, {1, 2}, 0.0)
    assert isinstance(back, Back)
    assert [one.id for one in back.assignments] == ["b", "c"]
    (late,) = made.assign([task("d")], 0.0)
    assert isinstance(late, Back), "it was on its way"
    assert kinds(made.heard(1, [Done(0, 1, 2, b"")], 0.0)) == [Ended]


def test_what_is_asked_back_and_has_begun_stays() -> None:
    made = pool(1)
    made.assign([task(id) for id in "abc"], 0.0)
    made.heard(1, [Began(0, 1)], 0.0)
    assert made.give_back(["a", "c", "unknown"], 0.0) == [Reclaim(1)]
    (back, *given) = made.reclaimed(1, {1, 2}, 0.0)
    assert isinstance(back, Back)
    assert [one.id for one in back.assignments] == ["c"]
    assert kinds(given) == [Give], "the other goes ahead again"


def test_the_alarm_of_a_task_that_is_killed_before_its_timeout_is_set_anew() -> None:
    made = pool()
    made.assign([task("a", timeout=0.02)], 10.0)
    made.heard(1, [Began(0, 1)], 10.0)
    made.cancel("a", 10.0)
    assert made.wake_at == 10.02
    made.tick(10.03)
    assert made.wake_at == 10.0 + STARTED_AFTER
    made.tick(10.0 + STARTED_AFTER)  # on the bit: a tick has an end
    assert made.wake_at == float("inf")


def test_how_a_process_ended_is_said_in_words() -> None:
    assert exit_story(-9) == "was killed by SIGKILL (kill -9, or the system was out of memory)"
    assert "with code 3" in exit_story(3)
    assert exit_story(-1000) == "was killed by signal 1000"
