"""What tasks print while they run, for whoever looks: twice a second what is new, within bounds. Pure.

    tasks that run for `LONG` s ─▶ what is new of each (the newest, where it is much) ─▶ pieces for the dispatcher

Shorter tasks cost nothing, and one that prints nothing costs a look at its file's size. What is left out is seen from
the places of the pieces (`upon.printed`); what a task printed in the end is in its result, whole or cut, as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from upon.dispatcher.protocol import Piece
from upon.endpoint.decisions.worker_record import Worker
from upon.printed import whole_characters

LONG = 1.0
"""Seconds that a task has to run before what it prints is shown."""
EVERY = 0.5
"""Seconds between two looks."""
PIECE = 16 * 1024
"""Bytes of one task in one look, at most."""
ALL = 512 * 1024
"""Bytes of all tasks of a manager in one look, about."""


class Printing:
    """What is known of the output of each task that runs."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, int]] = {}  # worker → seq of its task, place up to which all is known
        self._talking = 1  # tasks that had something new, the last time
        self._next = 0.0

    def pieces(
        self,
        workers: Iterable[Worker],
        look: Callable[[int, int, int], tuple[int, bytes] | None],
        attempt: Callable[[str, int], int],
        now: float,
    ) -> tuple[Piece, ...]:
        """Return what is new, if it is time to look.

        Args:
            workers: all.
            look: (worker, place, most) → where it begins, and bytes; None: nothing new, or not to be had now.
            attempt: the number under which the dispatcher knows an attempt now.
            now: monotonic s.
        """
        if now < self._next:
            return ()
        self._next = now + EVERY
        most = min(PIECE, ALL // self._talking)
        places: dict[int, tuple[int, int]] = {}
        pieces: list[Piece] = []
        for worker in workers:
            if (task := worker.running) is None or now - worker.since < LONG:
                continue
            seq, place = self._places.get(worker.number, (-1, 0))
            if seq != worker.seq:
                place = 0
            if (found := look(worker.number, place, most)) is not None:
                start, data = found
                skipped, text = whole_characters(data, at_start=start > place)
                if text:
                    start += skipped
                    place = start + len(text)
                    number = attempt(task.id, task.attempt)
                    pieces.append(Piece(task.id, number, start, place, text.decode("utf-8", "replace")))
            places[worker.number] = (worker.seq, place)
        self._places, self._talking = places, max(1, len(pieces))
        return tuple(pieces)
