"""The small parts: offsets, the set of what is done, retries, ids of results, results that do not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.dispatcher.world import invocation
from upon.dispatcher.done import DoneIds
from upon.dispatcher.publisher import too_large
from upon.dispatcher.recovery import ids_of
from upon.dispatcher.router import Refusals
from upon.dispatcher.tasks import IllegalTransition, new_task, retry_delay
from upon.ids import new_id
from upon.kafka.offsets import Offsets
from upon.messages import InvocationBatch, Result, ResultBatch, Retry, Timings, encode


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
    with pytest.raises(IllegalTransition, match=r"task a cannot go from ready to running \(way: arrived;"):
        task.go("running")


def test_ids_of_a_results_record() -> None:
    batch = ResultBatch(
        site="s", results=(Result(id="a", status="succeeded", payload=b"x", timings=Timings(started=3)),)
    )
    assert ids_of(encode(batch), "s") == ("a",)
    assert ids_of(encode(batch), "other") == ()
    assert ids_of(encode(ResultBatch(site="s")), "s") == ()
    assert ids_of(b"\xc1", "s") == ()


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
