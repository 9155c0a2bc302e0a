"""What is answered of a task's output: behind a place, with its gaps, in the end what the result has."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from upon.printed import OutputPiece, with_dropped
from upon.service.output import OF_ONE, Extract, Kept, in_the_end, so_far


def piece(start: int, text: str, attempt: int = 1) -> OutputPiece:
    return OutputPiece(id="a", attempt=attempt, start=start, end=start + len(text.encode()), text=text)


def kept(*pieces: OutputPiece) -> Kept:
    one = Kept(pieces[0].attempt)
    for each in pieces:
        one.add(each)
    return one


class TestSoFar:
    def test_nothing_is_known(self) -> None:
        assert so_far(None, 0, 0) == Extract(0, 0, 0, "")
        assert so_far(None, 2, 7) == Extract(2, 7, 7, "")

    def test_behind_a_place(self) -> None:
        seen = kept(piece(0, "one\n"), piece(4, "two\n"))
        assert so_far(seen, 0, 0) == Extract(1, 0, 8, "one\ntwo\n")
        assert so_far(seen, 1, 4) == Extract(1, 4, 8, "two\n")
        assert so_far(seen, 1, 6) == Extract(1, 6, 8, "o\n")
        assert so_far(seen, 1, 8) == Extract(1, 8, 8, "")

    def test_another_attempt_is_given_from_its_beginning(self) -> None:
        assert so_far(kept(piece(0, "again\n", attempt=2)), 1, 4) == Extract(2, 0, 6, "again\n")

    def test_gaps_are_named(self) -> None:
        seen = kept(piece(10, "a"), piece(20, "b\n"))
        assert so_far(seen, 1, 0).text == "… 10 bytes left out\na\n… 9 bytes left out\nb\n"

    def test_what_is_kept_is_bounded_and_what_comes_twice_counts_once(self) -> None:
        seen = kept(*(piece(n * 1000, "x" * 1000) for n in range(100)))
        assert seen.size <= OF_ONE
        before = deque(seen.pieces)
        seen.add(piece(5000, "x" * 1000))
        assert seen.pieces == before


class TestInTheEnd:
    def test_the_rest_comes_from_the_result(self) -> None:
        seen = kept(piece(0, "one\n"))
        assert in_the_end(seen, 1, 4, "one\ntwo\n") == Extract(1, 4, 8, "two\n")
        assert in_the_end(seen, 1, 4, "one\n") == Extract(1, 4, 4, "")

    def test_somebody_who_saw_nothing_gets_all_of_it(self) -> None:
        assert in_the_end(None, 0, 0, "one\n") == Extract(0, 0, 4, "one\n")
        assert in_the_end(kept(piece(0, "one\n")), 0, 0, "one\ntwo\n") == Extract(1, 0, 8, "one\ntwo\n")

    def test_the_end_of_much(self) -> None:
        seen = kept(piece(0, "one\n"))
        assert in_the_end(seen, 1, 4, with_dropped("z\n", 104)).text == "… 100 bytes left out\nz\n"
        assert in_the_end(None, 0, 0, with_dropped("z\n", 104)).text == "… 104 bytes left out\nz\n"

    def test_the_output_of_another_attempt_is_given_whole(self) -> None:
        seen = kept(piece(0, "one\n"))
        assert in_the_end(seen, 1, 4, "ONE\nTWO\n") == Extract(0, 0, 8, "ONE\nTWO\n")
        assert in_the_end(seen, 1, 4, "") == Extract(0, 0, 0, "")

    @given(st.text(max_size=200), st.data())
    def test_followed_in_pieces_it_is_what_was_printed(self, text: str, data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
        one, attempt, since, said = Kept(1), 0, 0, ""
        for start, end in zip([0, *cuts], cuts, strict=False):
            if part := text[start:end]:
                one.add(piece(len(text[:start].encode()), part))
            found = so_far(one, attempt, since)
            said, attempt, since = said + found.text, found.attempt, found.end
        found = in_the_end(one if one.pieces else None, attempt, since, text)
        assert said + found.text == text
