"""The small parts: offsets, the set of what is done, retries, ids of results, results that do not fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.dispatcher.world import invocation
from upon.dispatcher.decisions.instructions import BadRecordRead
from upon.dispatcher.decisions.past import DoneIds, Past
from upon.dispatcher.decisions.tasks import IllegalTransition, new_task, retry_delay
from upon.dispatcher.feeds import invocation_input
from upon.dispatcher.publisher import fitted, too_large
from upon.dispatcher.recovery import first_needed
from upon.dispatcher.router import Refusals
from upon.ids import new_id
from upon.kafka.batches import check
from upon.kafka.forms import results_lane
from upon.kafka.offsets import Offsets
from upon.kafka.positions import Position, committed_position
from upon.messages import (
    MAX_PAYLOAD,
    MAX_RECORD,
    Cause,
    Failure,
    Invocation,
    InvocationBatch,
    ItemFailure,
    Result,
    ResultBatch,
    Retry,
    Started,
    decode,
    encode,
)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=12), st.randoms())
def test_the_position_is_the_lowest_open_offset(steps: list[tuple[int, int]], random: object) -> None:
    offsets: Offsets[int]
    offsets, open_, at = Offsets(), [], 0
    for gap, count in steps:
        at += gap
        assert offsets.read(0, at)
        assert not offsets.read(0, at)
        for _ in range(count):
            offsets.open(0, at)
            open_.append(at)
    random.shuffle(open_)  # type: ignore[attr-defined]
    while open_:
        assert offsets.position(0) == min(open_)
        offsets.close(0, open_.pop())
    assert offsets.position(0) == (at + 1 if steps else 0)
    with pytest.raises(KeyError):
        offsets.close(0, at)


def test_positions_are_told_once() -> None:
    offsets: Offsets[int] = Offsets()
    offsets.read(1, 4)
    assert offsets.advanced() == {1: 5}
    assert offsets.advanced() == {}


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_what_is_settled_beyond_survives_a_restart(steps: list[tuple[int, bool]], split: int, again: int) -> None:
    """Some records are read and some of them settled; a successor reads some of them again, and is followed too."""
    offsets: Offsets[int] = Offsets()
    at, settled, read = 0, set[int](), list[int]()
    for gap, done in steps:
        at += gap
        read.append(at)
        offsets.read(0, at)
        offsets.open(0, at)
        if done:
            offsets.close(0, at)
            settled.add(at)
    if not read:
        return
    for many in (split, again):
        if not offsets.advanced():
            return  # nothing was read, and nothing is committed
        position = Position(offsets.position(0), 5, offsets.beyond(0, 6))
        position = committed_position(position.offset, position.metadata())
        assert all(one in settled for one in read if one < position.offset)
        assert position.beyond is None or all(
            position.beyond.settled(one) == (one in settled) for one in read if one >= position.offset
        )
        offsets = Offsets()
        if position.beyond is not None:
            offsets.resume(0, position.beyond)
        for one in [one for one in read if one >= position.offset][:many]:
            if offsets.read(0, one):
                assert one not in settled, "it is done again"
                offsets.open(0, one)
            else:
                assert one in settled, "it is passed over"


def test_done_forgets_the_oldest() -> None:
    done = DoneIds(limit=10)
    ids = [new_id() for _ in range(100)] + ["not a uuid"]
    for id in ids:
        done.add(id)
    assert len(done) <= 10
    assert all(id in done for id in ids[-5:])
    assert ids[0] not in done


@pytest.mark.parametrize(
    ("starts", "kinds", "wait"),
    [
        (1, ("OSError",), 2.0),
        (2, ("FileNotFoundError", "OSError"), 6.0),
        (3, ("OSError",), 10.0),
        (4, ("OSError",), None),
        (1, ("ValueError",), None),
    ],
)
def test_retry_delay(starts: int, kinds: tuple[str, ...], wait: float | None) -> None:
    policy = Retry(attempts=4, on=("OSError",), initial=2.0, factor=3.0, max=10.0, jitter=False)
    assert retry_delay(policy, starts, kinds, 0.5) == wait


def test_jitter_is_half_to_whole() -> None:
    policy = Retry(attempts=4, on=("E",), initial=2.0)
    assert retry_delay(policy, 1, ("E",), 0.0) == 1.0
    assert retry_delay(policy, 1, ("E",), 1.0) == 2.0


def test_a_factor_beyond_floats_waits_the_longest() -> None:
    policy = Retry(attempts=10_000, on=("E",), initial=1.0, factor=10.0, max=5.0, jitter=False)
    assert retry_delay(policy, 5000, ("E",), 0.0) == 5.0


def test_an_illegal_transition_tells_the_story() -> None:
    task = new_task(invocation("a"), InvocationBatch(site="s", invocations=()), (0, 0), 0)
    task.go("ready")
    with pytest.raises(
        IllegalTransition, match=r"task a cannot go from ready to running \(attempt 0 at no manager; no losses"
    ):
        task.go("running")


class TestThePast:
    def test_what_a_results_record_tells(self) -> None:
        past = Past()
        begun = (Started(id="b", started=1, attempt=2), Started(id="a", started=1))
        past.take(encode(ResultBatch(site="s", results=(Result(id="a", status="failed"),), started=begun)), "s")
        past.take(encode(ResultBatch(site="s", started=(Started(id="b", started=0, attempt=1),))), "s")
        past.take(encode(ResultBatch(site="other", results=(Result(id="b", status="failed"),))), "s")
        past.take(b"\xc1", "s")
        assert "a" in past.done
        assert "b" not in past.done
        assert past.starts == {"b": 2}

    def test_a_late_start_of_what_is_done_says_nothing(self) -> None:
        past = Past()
        past.take(encode(ResultBatch(site="s", results=(Result(id="a", status="failed"),))), "s")
        past.take(encode(ResultBatch(site="s", started=(Started(id="a", started=1),))), "s")
        assert past.starts == {}

    def test_results_are_needed_from_the_first_open_record_on(self) -> None:
        now = 1_000_000.0
        at = [(Position(7, 400_000_000), 7), (Position(9, 998_000_000), 12)]
        assert first_needed(at, now) == 998_000 - 60, "where nothing is open nothing is needed"
        assert first_needed(at[:1], now) == now - 900
        assert first_needed([(Position(9, 1_000_000), 12)], now) == now - 24 * 3600, "no further than at all"
        assert first_needed([(Position(9), 12)], now) == now - 24 * 3600


def test_a_result_is_fitted_to_a_record_whatever_of_it_is_too_large() -> None:
    """The payload may fit and what is around it not: a message, a traceback, the output."""
    lane = results_lane("results", site="s", group="g")
    big = "x" * MAX_RECORD
    good = Result(id="a", status="succeeded", payload=b"x" * MAX_PAYLOAD, stdout="o" * 10_000)
    assert decode(fitted(good, lane).body or b"", Result) == good
    for result in (
        Result(id="a", status="failed", failure=Failure(type="E", message=big)),
        Result(id="a", status="succeeded", payload=b"x" * MAX_PAYLOAD, stdout="o" * 200_000),
        Result(id="a", status="succeeded", bad_items=(ItemFailure(index=1, failure=Failure(type="E", message=big)),)),
        Result(id="a", status="succeeded", preview=big),
    ):
        entry = fitted(result, lane)
        check(lane, entry)
        cut = decode(entry.body or b"", Result)
        assert (cut.id, cut.status) == ("a", "failed")
        assert cut.failure is not None
        assert cut.failure.type == "PayloadTooLarge"


def test_an_invocation_whose_names_leave_no_room_for_a_result_is_a_dead_letter() -> None:
    subject = "x" * 40_000
    cause = Cause(rule="r", rule_revision=1, event_id="e", event_type="t", event_source="/s", event_subject=subject)
    for batch in (
        InvocationBatch(site="s", invocations=(Invocation(id="1", code="c", function="f", cause=cause),)),
        InvocationBatch(site="s", invocations=(Invocation(id="1" * 40_000, code="c", function="f"),)),
        InvocationBatch(site="s", group="g" * 40_000, invocations=(Invocation(id="1", code="c", function="f"),)),
    ):
        record = SimpleNamespace(
            topic="t", partition=0, offset=3, key=None, value=encode(batch), headers=(("a", None),), timestamp=1
        )
        found = invocation_input(record, "s", 5)  # type: ignore[arg-type]
        assert isinstance(found, BadRecordRead)
        assert found.letter.reason.startswith("PayloadTooLarge: task 1")


def test_a_result_that_does_not_fit_says_so() -> None:
    result = too_large(Result(id="a", status="succeeded", payload=b"x", stdout="o" * 50_000), 99)
    assert (result.status, result.payload, len(result.stdout)) == ("failed", b"", 10_000)
    assert result.failure is not None
    assert result.failure.type == "PayloadTooLarge"


def test_refusals_are_a_line_a_minute() -> None:
    refusals = Refusals()
    assert refusals.count(0.0) == 1
    assert [refusals.count(n / 100) for n in range(1, 1000)] == [None] * 999
    assert refusals.count(61.0) == 1000
    assert refusals.count(62.0) is None
