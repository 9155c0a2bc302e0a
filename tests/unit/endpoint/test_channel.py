"""Frames survive any cutting of the stream; output files keep the end."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from upon.endpoint import output
from upon.endpoint.channel import Began, Code, Done, Frames, FromWorker, Missing, Up, frame, from_worker
from upon.endpoint.decisions.code import CodeCache


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 70_000), max_size=3), max_size=5), st.lists(st.integers(40, 80_000), min_size=1)
)
def test_frames_come_out_as_they_went_in(sizes: list[list[int]], cuts: list[int]) -> None:
    sent = [[Done(1, 2, 3, b"x" * size) for size in one] for one in sizes]
    stream = b"".join(bytes(frame(one)) for one in sent)
    frames, got, at, turn = Frames(), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        got += [from_worker(body) for body in frames.feed(stream[at : at + step])]
        at, turn = at + step, turn + 1
    assert got == sent


def test_all_reports_survive_the_wire() -> None:
    reports: list[FromWorker] = [Up(3), Began(1, 2), Done(1, 2, 3, b"p", None, "v", "out", ()), Missing("c")]
    (body,) = Frames().feed(bytes(frame(reports)))
    assert from_worker(body) == reports


def test_output_keeps_the_end_and_starts_anew() -> None:
    descriptor = output.new_output()
    try:
        assert output.take(descriptor) == ""
        os.write(descriptor, b"first")
        assert output.take(descriptor) == "first"
        os.write(descriptor, b"a" * output.KEPT + b"\xff end")
        text = output.take(descriptor)
        assert text.startswith("[5 bytes before this were dropped]\na")
        assert text.endswith("\N{REPLACEMENT CHARACTER} end")
        assert output.take(descriptor) == ""
    finally:
        os.close(descriptor)


def test_output_without_end_is_cut_while_it_grows() -> None:
    descriptor = output.new_output()
    try:
        os.write(descriptor, b"x" * 100)
        assert not output.cut(descriptor)
        os.write(descriptor, b"x" * output.TOO_LONG + b"end")
        assert output.cut(descriptor)
        assert os.fstat(descriptor).st_blocks * 512 <= 2 * output.KEPT
        os.write(descriptor, b" more")
        assert output.take(descriptor).endswith("end more")
    finally:
        os.close(descriptor)


def test_the_code_cache_drops_what_was_not_used_for_longest() -> None:
    cache = CodeCache(limit=25)
    for name in "abc":
        cache.add(Code(name, b"x" * 10))
        cache.get("a")
    assert list(cache) == ["a", "c"] or list(cache) == ["c", "a"]
    assert cache.get("b") is None
    cache.add(Code("big", b"x" * 100))
    assert list(cache) == ["big"]
