"""What a manager owes: kept until stored, done once."""

from __future__ import annotations

from upon.dispatcher.protocol import Assignment, Attempt, Death, Outcome
from upon.endpoint.decisions.ledger import Ledger


def task(id: str, attempt: int = 1) -> Assignment:
    return Assignment(id, attempt, "c", "f", b"")


def test_what_runs_is_not_started_again_and_bears_the_newest_number() -> None:
    ledger = Ledger()
    assert ledger.take([task("a")]) == ([task("a")], [])
    assert ledger.take([task("a", 2)]) == ([], [])
    assert ledger.held() == (Attempt("a", 2),)
    assert ledger.attempt("a", 1) == 2
    assert ledger.ended(Outcome("a", 1, "succeeded")).attempt == 2


def test_an_outcome_is_kept_until_it_is_stored() -> None:
    ledger = Ledger()
    ledger.take([task("a")])
    outcome = ledger.ended(Outcome("a", 1, "succeeded"))
    assert ledger.owed() == ([outcome], [])
    assert ledger.held() == (Attempt("a", 1),)
    ledger.stored([Attempt("a", 1), Attempt("unknown", 1)])
    assert ledger.owed() == ([], [])
    assert ledger.held() == ()


def test_what_has_succeeded_is_answered_and_not_run_again() -> None:
    ledger = Ledger()
    ledger.take([task("a")])
    ledger.ended(Outcome("a", 1, "succeeded", b"x"))
    new, again = ledger.take([task("a", 1)])
    assert (new, [one.attempt for one in again]) == ([], [1])
    new, again = ledger.take([task("a", 3)])
    assert (new, [one.attempt for one in again]) == ([], [3])
    ledger.stored([Attempt("a", 3)])
    assert ledger.owed() == ([], [])


def test_a_failed_attempt_is_answered_and_a_newer_one_is_run() -> None:
    ledger = Ledger()
    ledger.take([task("a")])
    ledger.ended(Outcome("a", 1, "failed"))
    new, again = ledger.take([task("a", 1)])
    assert (new, len(again)) == ([], 1)
    assert ledger.take([task("a", 2)]) == ([task("a", 2)], [])
    assert ledger.owed() == ([], []), "the dispatcher has decided on the first attempt"


def test_an_older_stored_does_not_forget_a_newer_outcome() -> None:
    ledger = Ledger()
    ledger.take([task("a", 2)])
    ledger.ended(Outcome("a", 2, "failed"))
    ledger.stored([Attempt("a", 1)])
    assert len(ledger.owed()[0]) == 1


def test_a_death_is_kept_for_two_beats() -> None:
    ledger = Ledger()
    ledger.take([task("a")])
    death = ledger.died(Death("a", 1, "story"))
    ledger.beat()
    assert ledger.owed() == ([], [death])
    ledger.beat()
    assert ledger.owed() == ([], [])
    assert ledger.held() == ()


def test_a_death_is_forgotten_when_the_task_comes_again() -> None:
    ledger = Ledger()
    ledger.take([task("a")])
    ledger.died(Death("a", 1, "story"))
    ledger.take([task("a", 2)])
    assert ledger.owed() == ([], [])
    assert ledger.held() == (Attempt("a", 2),)


def test_cancel_finds_what_is_here_and_answers_for_the_rest() -> None:
    ledger = Ledger()
    ledger.take([task("runs", 2), task("done"), task("dead")])
    done = ledger.ended(Outcome("done", 1, "succeeded"))
    ledger.died(Death("dead", 1, "story"))
    attempts = [Attempt("runs", 2), Attempt("done", 1), Attempt("unknown", 1), Attempt("dead", 1)]
    ids, answers = ledger.cancel(attempts)
    assert ids == ["runs"]
    assert answers[0] == done
    assert [(one.id, one.status) for one in answers[1:]] == [("unknown", "cancelled")]
    assert ledger.cancel([Attempt("runs", 1)]) == ([], []), "an older attempt's cancel is late"
