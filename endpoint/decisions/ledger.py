"""What a manager owes the dispatcher: each attempt it took, until its outcome is stored in Kafka. Pure.

    Tasks ─▶ taken ─▶ outcome kept ─Stored─▶ forgotten
               ├────▶ given back: forgotten
               └────▶ death kept ──two Beats, or a newer attempt──▶ forgotten

Guarantees: an outcome is kept until it is `Stored`, and sent again after each Ready; work that a dispatcher sends
twice (it was restarted, or had given this manager up) is done once here: what is running is not started again, what
has succeeded is answered with its outcome. An outcome bears the newest attempt number that was given for it.
Its size is bounded by the credit the dispatcher gives: one entry for an attempt that is not Stored.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from upon.dispatcher.protocol import Assignment, Attempt, Death, Outcome
from upon.endpoint.decisions.endings import cancelled

BEATS = 2
"""A death is forgotten after so many Beats: by then the dispatcher has heard of it."""


class Ledger:
    """The attempts of one manager."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}  # id → attempt: queued or running here
        self._outcomes: dict[str, Outcome] = {}  # not stored
        self._deaths: dict[str, Death] = {}
        self._beats: dict[str, int] = {}  # id of a death → beats since

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, assignments: Iterable[Assignment]) -> tuple[list[Assignment], list[Outcome]]:
        """Take assignments in; return those to run, and the outcomes of those that were done before."""
        new: list[Assignment] = []
        again: list[Outcome] = []
        for assignment in assignments:
            id, attempt = assignment.id, assignment.attempt
            if id in self._taken:
                self._taken[id] = max(attempt, self._taken[id])
                continue
            kept = self._outcomes.get(id)
            if kept is not None and (kept.status == "succeeded" or attempt <= kept.attempt):
                if attempt > kept.attempt:
                    kept = self._outcomes[id] = msgspec.structs.replace(kept, attempt=attempt)
                again.append(kept)
                continue
            self._outcomes.pop(id, None)
            self._forget_death(id)
            self._taken[id] = attempt
            new.append(assignment)
        return new, again

    def ended(self, outcome: Outcome) -> Outcome:
        """Keep an outcome; return it as it is to be sent."""
        attempt = self._taken.pop(outcome.id, outcome.attempt)
        if attempt != outcome.attempt:
            outcome = msgspec.structs.replace(outcome, attempt=attempt)
        self._outcomes[outcome.id] = outcome
        return outcome

    def died(self, death: Death) -> Death:
        """Keep a death; return it as it is to be sent."""
        attempt = self._taken.pop(death.id, death.attempt)
        if attempt != death.attempt:
            death = msgspec.structs.replace(death, attempt=attempt)
        self._deaths[death.id], self._beats[death.id] = death, 0
        return death

    def back(self, assignments: Iterable[Assignment]) -> list[Attempt]:
        """These go back to the dispatcher; return what is said of them."""
        return [Attempt(one.id, self._taken.pop(one.id)) for one in assignments if one.id in self._taken]

    def attempt(self, id: str, attempt: int) -> int:
        """Return the newest attempt number of a task that is here, for reports on it."""
        return self._taken.get(id, attempt)

    def cancel(self, attempts: Iterable[Attempt]) -> tuple[list[str], list[Outcome]]:
        """Return the ids to cancel in the pool, and the answers for what is not there."""
        ids: list[str] = []
        answers: list[Outcome] = []
        for id, attempt in attempts:
            if id in self._taken:
                if attempt >= self._taken[id]:
                    self._taken[id] = attempt
                    ids.append(id)
            elif id in self._outcomes:
                answers.append(self._outcomes[id])
            elif id not in self._deaths:
                answers.append(cancelled(Assignment(id, attempt, "", "", b"")))
        return ids, answers

    def stored(self, attempts: Iterable[Attempt]) -> None:
        """Their outcomes are in Kafka."""
        for id, attempt in attempts:
            kept = self._outcomes.get(id)
            if kept is not None and kept.attempt <= attempt:
                del self._outcomes[id]
            if id in self._deaths and self._deaths[id].attempt <= attempt:
                self._forget_death(id)

    def beat(self) -> None:
        """The dispatcher knows us and has said so."""
        for id in list(self._beats):
            self._beats[id] += 1
            if self._beats[id] >= BEATS:
                self._forget_death(id)

    def held(self) -> tuple[Attempt, ...]:
        """Return what a Ready names: what is here, and what is ended and not stored."""
        return (
            *(Attempt(id, attempt) for id, attempt in self._taken.items()),
            *(Attempt(outcome.id, outcome.attempt) for outcome in self._outcomes.values()),
            *(Attempt(death.id, death.attempt) for death in self._deaths.values()),
        )

    def owed(self) -> tuple[list[Outcome], list[Death]]:
        """Return what is to be sent after a Ready."""
        return list(self._outcomes.values()), list(self._deaths.values())

    def _forget_death(self, id: str) -> None:
        self._deaths.pop(id, None)
        self._beats.pop(id, None)
