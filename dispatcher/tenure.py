"""Which of the dispatchers that are started for a site is the active one; the others stand by. Pure.

    standing by ──the site is free, or its dispatcher silent──▶ claiming ──its claim counts──▶ active
        ▲                                                          │                             │
        └────────────────── another's claim counts ────────────────┴── a higher epoch is read ───┘

A claim is a `SiteStatus` in upon.sites whose epoch is higher than all before it; the log's order decides between two
that are written at once, and both read the same. Managers serve the highest epoch that they have heard, and take
nothing from a lower one: so a dispatcher that was stopped for a minute and does not know yet that it was superseded
starts nothing. Its commits need no fence: whoever writes them, they say only what has its result in Kafka.

Not here: reading and writing (`upon.dispatcher.standby`), what managers do with an epoch (`allegiance`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from upon.messages import SiteStatus

SPEAKS_EVERY = 2.0
"""Seconds between two words of an active dispatcher, at most."""
LOOK_EVERY = 0.5
"""Seconds between two looks at a site that another serves."""
SILENT_LOOKS = 12
"""Looks, with Kafka there each time, after which a dispatcher that says nothing counts as gone."""


@dataclass(frozen=True, slots=True)
class Term:
    """The time in which a dispatcher is the active one of its site.

    Attributes:
        epoch: higher than that of every dispatcher before.
        session: new with each term: tells two apart that claimed one epoch.
        contested: the one before may still be at work, for all that is known.
        closed: nothing is to be started until somebody opens the site: as the one before was told.
    """

    epoch: int
    session: str
    contested: bool = False
    closed: bool = False


def is_over(status: SiteStatus | None, host: str, alive: Callable[[str], bool]) -> bool | None:
    """Return whether a site's dispatcher has ended, as far as its last word tells; None: only time will tell.

    Args:
        status: its last word; None if none ever said one.
        host: the name of this host.
        alive: whether a process (`upon.processes.myself`) runs on this host.
    """
    if status is None or status.state == "down":
        return True
    if status.host != host or not status.process:
        return None
    return not alive(status.process)


class Tenure:
    """What one dispatcher knows of its site's.

    Args:
        host: this host's name.
        alive: as in `is_over`.

    Attributes:
        last: the last word that counted, whosever it was.
    """

    def __init__(self, host: str, alive: Callable[[str], bool]) -> None:
        self._host, self._alive = host, alive
        self.last: SiteStatus | None = None
        self._silent = 0

    def heard(self, status: SiteStatus) -> None:
        """Take in what was read, in the order of the log."""
        if status.holds_after(self.last):
            self.last, self._silent = status, 0

    def looked(self, answers: bool) -> None:
        """Take in that nothing was heard for `LOOK_EVERY` s.

        Args:
            answers: Kafka is there: nothing was said.
        """
        self._silent = self._silent + 1 if answers else 0

    def vacancy(self) -> Literal["free", "silent"] | None:
        """Return why the site may be claimed: nobody has it, or who has it is silent; None: it may not."""
        if is_over(self.last, self._host, self._alive):
            return "free"
        return "silent" if self._silent >= SILENT_LOOKS else None

    @property
    def closed(self) -> bool:
        """Whether the site is closed, as its dispatcher said last."""
        return self.last is not None and self.last.closed

    def next_epoch(self, now: int) -> int:
        """Return the epoch of the next term.

        Args:
            now: ms since the epoch of clocks; it keeps epochs rising if the topic was lost and managers lived on.
        """
        return max(now, self.last.epoch + 1 if self.last is not None else 1)

    def decided(self, term: Term) -> bool:
        """Whether the log has come to where this term was claimed, or the next one."""
        return self.last is not None and self.last.epoch >= term.epoch

    def holds(self, term: Term) -> bool:
        """Whether this term goes on."""
        return self.last is not None and self.last.session == term.session
