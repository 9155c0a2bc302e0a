"""Which readings of a process variable are events? A pure decision over what the control system says, in order.

    connected                  was not                                                   → connected
    disconnected               was connected, or never answered                          → disconnected
    a reading                  differs from the last *announced* value by more than the
                               deadband, or at all if it is no number                    → value
                               has another alarm severity than the reading before it     → alarm

The deadband is compared with the last value that was announced, so a slow drift is announced too, each time it has
gone further than the deadband. A reading of the same time, value and severity as the last one taken in is a repetition,
which a monitor makes of its present state on every connection: it is dropped. Times order nothing, the connection does:
a clock that is set back silences no PV. NaN differs from every number and not from itself.

The state can be kept over a restart (`saved`, `restored`). Not here: the protocol, the clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["value", "alarm", "connected", "disconnected"]
SEVERITIES = ("NO_ALARM", "MINOR", "MAJOR", "INVALID")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a monitor said: value (JSON), alarm severity (0 to 3) and status (its name), time in ns since the epoch."""

    value: Any
    severity: int
    status: str
    at: int


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is an event: its kind, its data, and when it was, ns since the epoch."""

    kind: Kind
    data: dict[str, Any]
    at: int


@dataclass(slots=True)
class Channel:
    """One process variable.

    Args:
        name: of the PV.
        deadband: least change of a number that counts, absolute; 0: every change.
    """

    name: str
    deadband: float = 0.0
    connected: bool | None = None
    severity: int = 0
    at: int = 0
    value: Any = None  # of the last reading
    announced: Any = None
    has_announced: bool = field(default=False)

    def connection(self, connected: bool, at: int) -> list[Change]:
        """Take in that the PV is, or is not, connected."""
        if connected == self.connected:
            return []
        self.connected = connected
        return [Change("connected" if connected else "disconnected", {"pv": self.name}, at)]

    def reading(self, reading: Reading) -> list[Change]:
        """Take in a reading; return the events in it, the alarm first."""
        if self.repeats(reading):
            return []
        self.at, self.value = reading.at, reading.value
        data = {
            "pv": self.name,
            "value": reading.value,
            "severity": severity_name(reading.severity),
            "status": reading.status,
        }
        changes = []
        if reading.severity != self.severity:
            changes.append(Change("alarm", {**data, "previous": severity_name(self.severity)}, reading.at))
            self.severity = reading.severity
        if not self.has_announced or differs(reading.value, self.announced, self.deadband):
            previous = self.announced if self.has_announced else None
            changes.append(Change("value", {**data, "previous": previous}, reading.at))
            self.announced, self.has_announced = reading.value, True
        return changes

    def repeats(self, reading: Reading) -> bool:
        """Return whether a reading is the last one taken in, told again."""
        same = (reading.at, reading.severity) == (self.at, self.severity)
        return same and not differs(reading.value, self.value, 0.0)

    def saved(self) -> dict[str, Any]:
        """Return the state as JSON."""
        state = {"connected": self.connected, "severity": self.severity, "at": self.at, "value": self.value}
        return {**state, "announced": self.announced} if self.has_announced else state

    def restored(self, state: dict[str, Any]) -> Channel:
        """Take over a state that was saved; return self."""
        self.connected, self.severity, self.at = state["connected"], state["severity"], state["at"]
        self.value = state["value"]
        self.has_announced = "announced" in state
        self.announced = state.get("announced")
        return self


def differs(value: Any, announced: Any, deadband: float) -> bool:
    """Return whether a value counts as another than the one announced."""
    if not (_is_number(value) and _is_number(announced)):
        return bool(value != announced)
    if math.isnan(value) or math.isnan(announced):
        return math.isnan(value) != math.isnan(announced)
    if math.isinf(value) or math.isinf(announced):
        return bool(value != announced)
    return bool(abs(value - announced) > deadband)


def severity_name(severity: int) -> str:
    """Return the name of an EPICS alarm severity."""
    return SEVERITIES[severity] if 0 <= severity < len(SEVERITIES) else str(severity)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
