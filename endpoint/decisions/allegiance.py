"""Which dispatcher a manager serves, of those that it is connected to. Pure.

Each message of a dispatcher bears its epoch. The highest is served; a lower one is that of a dispatcher which was
superseded, whether it knows that yet or not, and nothing is taken from it. So an attempt is begun, and an outcome
forgotten, on the word of one dispatcher alone.
"""

from __future__ import annotations


class Allegiance:
    """Whom a manager serves.

    Attributes:
        epoch: the highest that was heard, 0 = none yet. It never falls.
        serving: the place, among the addresses, of whose it is; None: nobody was heard yet.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.serving: int | None = None

    def takes(self, place: int, epoch: int) -> bool:
        """Take in that a message with this epoch has come from there; return whether it counts."""
        if epoch < self.epoch:
            return False
        self.epoch, self.serving = epoch, place
        return True

    def greets(self, place: int) -> bool:
        """Whether a new connection to there is one to report on: whose it is that is served, or may be."""
        return self.serving in (None, place)
