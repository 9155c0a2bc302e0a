"""What a node offers to its tasks: memory, accelerators, cores; as it is set, else as it is found."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import psutil

from upon.config import Settings
from upon.endpoint.confinement import VISIBLE
from upon.endpoint.decisions.leases import Offer

_NVIDIA = re.compile(r"nvidia([0-9]+)")


def offer_of(settings: Settings) -> Offer:
    """Return what this process has for its tasks together."""
    cores = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
    return Offer(
        memory=settings.memory or memory(),
        accelerators=accelerators(settings.accelerators, os.environ),
        cores=cores if len(cores) >= settings.workers else (),  # more workers than cores: they share them all
    )


def memory() -> int:
    """Return the bytes that the processes of this node, or of its container, may take."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def accelerators(named: str, environment: Mapping[str, str], devices: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the names of the accelerators: those that are set, else visible, else NVIDIA's that are there.

    Args:
        named: the setting: names with commas between, ``none``, or empty: look.
        environment: the manager's.
        devices: the folder of devices.
    """
    if named.strip().lower() == "none":
        return ()
    for text in (named, *(environment.get(variable, "") for variable in VISIBLE)):
        if names := tuple(part.strip() for part in text.split(",") if part.strip()):
            return names
    found = (_NVIDIA.fullmatch(entry.name) for entry in devices.iterdir())
    return tuple(str(number) for number in sorted(int(one[1]) for one in found if one))
