"""Was an event before a change of the rules, or after it? They stand in different logs.

The broker's clock decides, which stamps both. It may be set back, though (a machine that began with a wrong clock), and
then what comes after a change looks older than it, for as long as the clock was wrong by. So a change says as well
where the log of events ended when it was made: what stands there or behind is after it, whatever the clock says.

    upon.events/0   … e7  e8 │ e9  e10 …      the change was made here: `ends[0]` = 9
                             └── by offset e9 and all behind it are after the change; by time others may be, too

Both are in Kafka, so whoever reads an event again decides alike. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """When Kafka had an event.

    Attributes:
        recorded: ns since the epoch, the broker's clock.
        partition, offset: its place in the log of events.
    """

    recorded: int
    partition: int = 0
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Since:
    """From when on a change is in force.

    Attributes:
        at: ns since the epoch, the broker's clock; of later changes never less.
        ends: where each partition of the log of events ended; empty: not known. One that is not there came later.
    """

    at: int
    ends: Mapping[int, int]

    def is_before(self, event: Moment) -> bool:
        """Return whether an event is after the change."""
        return self.at <= event.recorded or (bool(self.ends) and self.ends.get(event.partition, 0) <= event.offset)
