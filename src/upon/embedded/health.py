"""How a system does: what its supervisor wrote last, held against what can be seen now.

    state.json ─┐
    processes  ─┼─ judge (pure) ─▶ view: what `upon status --json` prints, and `upon doctor` looks at
    addresses  ─┤
    disk       ─┘

A part is up if the supervisor said so, that process runs, and (Kafka, service) it answers. What was remembered
alone counts for nothing: the supervisor may have been unable to write. Not here: workers and lag, which only the
service knows (`upon.cli.up`).
"""

from __future__ import annotations

import http.client
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upon.config import Home
from upon.embedded import leftover
from upon.embedded.broker.folder import BrokerFolder
from upon.embedded.parts import KAFKA, PARTS, ROOM, megabytes
from upon.embedded.state import PartState, SystemState
from upon.kafka.answers import is_ready

ANSWER = 2.0
"""Seconds that a server has to answer."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What can be seen of a system now."""

    running: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # process ids by part, supervisor alive
    leftover: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # … whose supervisor is gone
    kafka: bool = True  # a broker answers
    service: bool = True
    free: int = 1 << 60  # bytes free on the disk of the home


def look(home: Home, state: SystemState | None) -> Facts:
    """Return the facts: processes, addresses, disk. Takes 50 ms, a few seconds when something hangs."""
    running: dict[str, tuple[int, ...]] = {}
    left: dict[str, tuple[int, ...]] = {}
    for found in leftover.system(home.path, BrokerFolder(home.kafka).settings):
        if found.supervised is not None:
            into = running if found.supervised else left
            into[found.name] = (*into.get(found.name, ()), found.process.pid)
    return Facts(
        running=running,
        leftover=left,
        kafka=state is None or is_ready(state.kafka, timeout=ANSWER),
        service=state is None or service_answers(state.service),
        free=free(home.path),
    )


def free(path: Path) -> int:
    """Return the bytes free on a folder's disk; a large number if that cannot be told."""
    try:
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        return shutil.disk_usage(existing).free
    except OSError:
        return 1 << 60


def service_answers(address: str, timeout: float = ANSWER) -> bool:
    """Return whether the service at http://HOST:PORT says that it is there."""
    connection = http.client.HTTPConnection(address.partition("://")[2], timeout=timeout)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def judge(home: Path, state: SystemState | None, facts: Facts) -> dict[str, Any]:
    """Return how the system does. `state`: up, starting, degraded (`troubles` says why) or stopped."""
    troubles = []
    if facts.leftover:
        names = ", ".join(f"{name} (pid {' '.join(map(str, pids))})" for name, pids in facts.leftover.items())
        troubles.append(
            f"left over from a supervisor that was killed: {names}; `upon down` stops them, so does `upon up`"
        )
    view: dict[str, Any] = {"home": str(home), "state": "stopped", "pid": None, "kafka": "", "service": "", "site": ""}
    if state is None:
        nothing: dict[str, Any] = {"state": "stopped", "pids": [], "restarts": 0, "info": {}, "reason": ""}
        parts = {name: {**nothing, "pids": list(facts.leftover.get(name, ()))} for name in (KAFKA, *PARTS)}
        return view | {"troubles": troubles, "parts": parts}
    if facts.free < ROOM:
        troubles.insert(
            0, f"the disk of {home} is full ({megabytes(facts.free)} free): free some room, and all goes on by itself"
        )
    parts = {name: _part(name, part, facts) for name, part in state.parts.items()}
    if KAFKA not in parts:
        seen, reason = ("external", "") if facts.kafka else ("down", f"nobody answers at {state.kafka}")
        parts[KAFKA] = {"state": seen, "pids": [], "restarts": 0, "info": {}, "reason": reason}
    for name, part in parts.items():
        if part["state"] in ("down", "failed"):
            troubles.append(f"{name} is {part['state']}{': ' if part['reason'] else ''}{part['reason']}")
    states = {part["state"] for part in parts.values()}
    verdict = "degraded" if troubles else "starting" if "starting" in states else "up"
    return view | {
        "state": verdict,
        "pid": state.pid,
        "kafka": state.kafka,
        "service": state.service,
        "site": state.site,
        "troubles": troubles,
        "parts": parts,
    }


def _part(name: str, part: PartState, facts: Facts) -> dict[str, Any]:
    pids = facts.running.get(name, ())
    answers = {KAFKA: facts.kafka, "service": facts.service}.get(name, True)
    reason = part.reason
    if part.state == "failed":  # also while it is tried again
        seen = "failed"
    elif not pids:
        seen, reason = "down", reason or "its process is gone"
    elif part.state != "up" or not set(part.pids) <= set(pids):
        seen = "starting"
    elif not answers:
        seen, reason = "down", "its process runs, but does not answer"
    else:
        seen, reason = "up", ""
    return {"state": seen, "pids": list(pids), "restarts": part.restarts, "info": part.info, "reason": reason}
