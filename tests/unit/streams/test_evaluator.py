"""The evaluator process: the kernel ends what does not end by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from upon.streams import evaluator as module
from upon.streams.evaluator import STRIKES, Evaluator, Exceeded

ENDLESS = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(a, " * 9 + "a" + ")" * 9


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    one = Evaluator()
    yield one
    one.close()


def test_a_value_or_why_there_is_none(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "budget", 10.0)  # 10 MB to and fro take CPU time on a busy machine
    assert evaluator.evaluate("data.map(x, x * 2)", {"data": [1, 2]}) == (True, [2, 4])
    assert evaluator.evaluate("{'t': timestamp(time), 'b': b'x'}", {"time": "2026-01-01T00:00:00Z"}) == (
        True,
        {"t": "2026-01-01T00:00:00Z", "b": b"x"},
    )
    assert evaluator.evaluate("data.nope", {"data": {}}) == (False, "there is no field 'nope'")
    assert evaluator.evaluate("subject", {"subject": "x" * 10_000_000}) == (True, "x" * 10_000_000)


def test_time_memory_and_crashes_are_bounded_and_the_next_one_is_served(evaluator: Evaluator) -> None:
    with pytest.raises(Exceeded, match="CPU time"):
        evaluator.evaluate(ENDLESS, {})
    with pytest.raises(Exceeded, match=r"CPU time|memory"):
        evaluator.evaluate("['" + "x" * 100 + "']" + ".map(x, x + x + x + x + x + x + x + x)" * 20, {})
    assert evaluator.evaluate("1 + 1", {}) == (True, 2)


def test_an_evaluator_that_is_lost_is_started_again(evaluator: Evaluator) -> None:
    assert evaluator.evaluate("1", {}) == (True, 1)
    assert evaluator._process is not None
    os.kill(evaluator._process.pid, signal.SIGKILL)
    assert evaluator.evaluate("2", {}) == (True, 2)


def test_what_exceeds_again_and_again_is_refused_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Evaluator(budget=0.01)
    asked = 0
    real = one._ask

    def counting(question: tuple[str, dict[str, object], float]) -> tuple[bool, object]:
        nonlocal asked
        asked += 1
        return real(question)

    monkeypatch.setattr(one, "_ask", counting)
    for _ in range(STRIKES):
        with pytest.raises(Exceeded, match=r"took more than 0\.01 s"):
            one.evaluate(ENDLESS, {})
    with pytest.raises(Exceeded, match="5 times in a row and is not evaluated for another"):
        one.evaluate(ENDLESS, {})
    assert asked == STRIKES
    assert one.evaluate("1", {}) == (True, 1)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with pytest.raises(Exceeded, match="took more"):
        one.evaluate(ENDLESS, {})
    one.close()
