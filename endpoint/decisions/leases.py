"""What tasks have for themselves beyond one worker: workers that rest meanwhile, cores, memory, accelerators. Pure.

A manager's slots are its workers. A task that is to have four cores runs in one worker, and three others rest until it
has ended: so nothing else takes the cores that it was promised. It is bound to four of the manager's cores (what it
computes with more threads shares those), and sees its own accelerators alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from upon.endpoint.decisions.worker_record import Worker
from upon.messages import Resources


@dataclass(frozen=True, slots=True)
class Offer:
    """What a manager has for all its tasks together.

    Attributes:
        memory: bytes.
        accelerators: names, as libraries know them (of GPUs: their numbers).
        cores: numbers of the cores that its tasks may be bound to; none: they are bound to none.
    """

    memory: int = 0
    accelerators: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()


@dataclass(slots=True)
class Lease:
    """What one task has."""

    resting: list[Worker]
    memory: int
    accelerators: tuple[str, ...]
    cores: tuple[int, ...] = ()


@dataclass(slots=True)
class Leases:
    """What is free, and who has what.

    Args:
        offer: what there is.
    """

    offer: Offer
    _memory: int = field(init=False)
    _accelerators: list[str] = field(init=False)
    _cores: list[int] = field(init=False)
    _leases: dict[str, Lease] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._memory = self.offer.memory
        self._accelerators, self._cores = list(self.offer.accelerators), list(self.offer.cores)

    @property
    def any(self) -> bool:
        """Whether somebody has something."""
        return bool(self._leases)

    def could(self, needs: Resources, slots: int) -> bool:
        """Whether there is so much, free or not."""
        offer = self.offer
        return needs.cores <= slots and needs.memory <= offer.memory and needs.accelerators <= len(offer.accelerators)

    def grant(self, id: str, needs: Resources, idle: Sequence[Worker]) -> Lease | None:
        """Give a task what it needs; None: not all of it is free.

        Args:
            idle: workers without work; the first is for the task, the next ones rest.
        """
        if len(idle) < needs.cores or self._memory < needs.memory or len(self._accelerators) < needs.accelerators:
            return None
        lease = Lease(list(idle[1 : needs.cores]), needs.memory, tuple(self._accelerators[: needs.accelerators]))
        del self._accelerators[: needs.accelerators]
        if len(self._cores) >= needs.cores:
            lease.cores = tuple(self._cores[: needs.cores])
            del self._cores[: needs.cores]
        self._memory -= needs.memory
        for worker in lease.resting:
            worker.resting = True
        self._leases[id] = lease
        return lease

    def end(self, id: str) -> list[Worker]:
        """A task has ended, or will not begin here: return the workers that rested for it."""
        lease = self._leases.pop(id, None)
        if lease is None:
            return []
        self._memory += lease.memory
        self._accelerators += lease.accelerators
        self._cores += lease.cores
        for worker in lease.resting:
            worker.resting = False
        return lease.resting
