"""What is shown of what tasks print: once they run for a while, twice a second, within bounds, in whole characters."""

from __future__ import annotations

from upon.dispatcher.protocol import Assignment, Piece
from upon.endpoint.decisions.worker_record import Worker
from upon.endpoint.printing import ALL, EVERY, LONG, PIECE, Printing


class Screen:
    """Workers and what their tasks have printed."""

    def __init__(self, count: int = 1) -> None:
        self.workers = [Worker(number, since=0.0) for number in range(count)]
        self.printed = dict.fromkeys(range(count), b"")
        self.looks = 0
        self.printing = Printing()
        for worker in self.workers:
            worker.running = Assignment(f"t{worker.number}", 1, "c", "f", b"")

    def look(self, worker: int, place: int, most: int) -> tuple[int, bytes] | None:
        self.looks += 1
        data = self.printed[worker]
        start = max(place, len(data) - most)
        return (start, data[start:]) if len(data) > place else None

    def at(self, now: float) -> list[Piece]:
        return list(self.printing.pieces(self.workers, self.look, lambda _, attempt: attempt + 1, now))


def test_pieces_follow_each_other_from_the_second_second_on() -> None:
    screen = Screen()
    screen.printed[0] = b"one\n"
    assert screen.at(LONG - 0.1) == []
    assert screen.looks == 0
    assert screen.at(LONG - 0.1 + EVERY) == [Piece("t0", 2, 0, 4, "one\n")]
    screen.printed[0] += b"two\n"
    assert screen.at(LONG) == [], "it is too soon"
    assert screen.at(LONG + 2 * EVERY) == [Piece("t0", 2, 4, 8, "two\n")]
    assert screen.at(LONG + 3 * EVERY) == []


def test_a_flood_is_shown_by_its_newest() -> None:
    screen = Screen()
    screen.printed[0] = b"x" * (3 * PIECE)
    (piece,) = screen.at(LONG)
    assert (piece.start, piece.end, len(piece.text)) == (2 * PIECE, 3 * PIECE, PIECE)


def test_many_floods_share_what_a_manager_says() -> None:
    screen = Screen(1024)
    total = 0
    for turn in range(1, 4):
        for number in screen.printed:
            screen.printed[number] += b"x" * (2 * PIECE)
        total = sum(len(piece.text) for piece in screen.at(LONG + turn * EVERY))
    assert 0 < total <= ALL


def test_a_character_is_not_cut_in_two() -> None:
    screen = Screen()
    whole = "aé€😀".encode()
    text, now = "", LONG
    for size in range(1, len(whole) + 1):
        screen.printed[0] = whole[:size]
        text += "".join(piece.text for piece in screen.at(now))
        now += EVERY
    assert text == "aé€😀"
    screen.printed[0] += "😀".encode() * PIECE
    (piece,) = screen.at(now)
    assert set(piece.text) == {"😀"}
    assert piece.end - piece.start == len(piece.text.encode())


def test_the_next_task_of_a_worker_begins_anew() -> None:
    screen = Screen()
    screen.printed[0] = b"first\n"
    assert screen.at(LONG)[0].text == "first\n"
    worker = screen.workers[0]
    worker.seq, worker.since, worker.running = 1, 10.0, Assignment("t1", 1, "c", "f", b"")
    screen.printed[0] = b"second task\n"
    assert screen.at(10.0 + LONG) == [Piece("t1", 2, 0, 12, "second task\n")]
