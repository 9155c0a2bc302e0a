"""Whose a site is: from the log alone, so that all who read it agree."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.dispatcher.tenure import SILENT_LOOKS, Tenure, Term, is_over
from upon.messages import SiteStatus


def word(session: str = "a", epoch: int = 1, **more: object) -> SiteStatus:
    given = {"site": "s", "pid": 1, "host": "there", "process": "1:1.00", "at": 1, "session": session, "epoch": epoch}
    return SiteStatus(**{**given, **more})  # type: ignore[arg-type]


def tenure(*heard: SiteStatus, alive: bool = True) -> Tenure:
    made = Tenure("here", lambda _: alive)
    for status in heard:
        made.heard(status)
    return made


@pytest.mark.parametrize(
    ("status", "over"),
    [
        (None, True),
        (word(state="down"), True),
        (word(host="here"), False),
        (word(host="here", process="2:1.00"), True),
        (word(host="there"), None),
        (word(host="here", process=""), None),
    ],
)
def test_a_dispatchers_last_word_tells_whether_it_has_ended(status: SiteStatus | None, over: bool | None) -> None:
    assert is_over(status, "here", lambda process: process == "1:1.00") is over


def test_a_site_is_free_if_nobody_had_it_or_who_had_it_has_ended() -> None:
    assert tenure().vacancy() == "free"
    assert tenure(word(), word(state="down")).vacancy() == "free"
    assert tenure(word(host="here"), alive=False).vacancy() == "free"
    assert tenure(word()).vacancy() is None


def test_a_silent_dispatcher_is_given_up_after_looks_at_which_kafka_was_there() -> None:
    one = tenure(word())
    for _ in range(SILENT_LOOKS - 1):
        one.looked(answers=True)
    assert one.vacancy() is None
    one.looked(answers=False)  # Kafka is away: what is not heard then says nothing
    one.looked(answers=True)
    assert one.vacancy() is None
    for _ in range(SILENT_LOOKS - 1):
        one.looked(answers=True)
    assert one.vacancy() == "silent"
    one.heard(word())
    assert one.vacancy() is None


def test_a_word_of_one_that_was_superseded_is_no_sign_of_life() -> None:
    one = tenure(word("a", 1), word("b", 2))
    for _ in range(SILENT_LOOKS):
        one.heard(word("a", 1))
        one.looked(answers=True)
    assert one.vacancy() == "silent"


def test_the_first_of_two_claims_of_one_epoch_counts() -> None:
    first, second = Term(7, "a"), Term(7, "b")
    one = tenure(word("a", 7), word("b", 7))
    assert one.decided(second)
    assert one.holds(first)
    assert not one.holds(second)


def test_epochs_rise_whatever_the_clock_and_whatever_was_lost() -> None:
    assert tenure(word(epoch=5)).next_epoch(now=1_000) == 1_000
    assert tenure(word(epoch=5_000)).next_epoch(now=1_000) == 5_001
    assert tenure().next_epoch(now=1_000) == 1_000


@dataclass
class Candidate:
    """One of several that read the same log, each at its own pace."""

    name: str
    tenure: Tenure = field(default_factory=lambda: Tenure("here", lambda _: True))
    read: int = 0
    term: Term | None = None
    claims: int = 0

    def holds(self) -> bool:
        return self.term is not None and self.tenure.holds(self.term)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["read", "claim", "speak"])), max_size=60))
def test_of_all_that_have_read_the_log_to_its_end_at_most_one_is_active(steps: list[tuple[str, str]]) -> None:
    """Whatever they do, and in particular one that goes on speaking without having read that it was superseded."""
    log: list[SiteStatus] = []
    all_of_them = {name: Candidate(name) for name in "abc"}
    for name, step in steps:
        one = all_of_them[name]
        if step == "read" and one.read < len(log):
            one.tenure.heard(log[one.read])
            one.read += 1
        elif step == "claim" and not one.holds():
            one.claims += 1
            one.term = Term(one.tenure.next_epoch(now=1), f"{name}{one.claims}")
            log.append(word(one.term.session, one.term.epoch))
        elif step == "speak" and one.holds():
            assert one.term is not None
            log.append(word(one.term.session, one.term.epoch))
    for one in all_of_them.values():
        for status in log[one.read :]:
            one.tenure.heard(status)
    assert sum(one.holds() for one in all_of_them.values()) <= 1
    assert len({one.tenure.last.session for one in all_of_them.values() if one.tenure.last}) <= 1
    if log:
        top = max(status.epoch for status in log)
        first = next(status for status in log if status.epoch == top)
        assert all_of_them["a"].tenure.last is not None
        assert all_of_them["a"].tenure.last.session == first.session
