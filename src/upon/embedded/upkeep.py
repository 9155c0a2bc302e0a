"""What supervision itself needs, looked after beside the parts: the state file, the keeper, room on the disk.

Guarantee: nothing here ends supervision. A state that cannot be written is written once it can be; a keeper that was
killed has a successor; a disk that fills, and one that has room again, is said once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from upon.config import Home
from upon.embedded.groups import Groups
from upon.embedded.health import free
from upon.embedded.parts import ROOM, megabytes
from upon.embedded.state import SystemState
from upon.machine import refusal

EVERY = 1.0
"""Seconds between two looks."""


class Upkeep:
    """The upkeep of one running system.

    Args:
        home, state, groups: of the system.
        say: told in one line what happens.
        on_ready: called when all parts have come up, or are known not to.
    """

    def __init__(
        self,
        home: Home,
        state: SystemState,
        groups: Groups,
        say: Callable[[str, str], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._home, self._state, self._groups, self._say, self._on_ready = home, state, groups, say, on_ready
        self._unwritten = False
        self._full = False

    def write(self, name: str, **changes: Any) -> None:
        """Change the state of a part, and write it down."""
        part = self._state.parts[name]
        for field, value in changes.items():
            setattr(part, field, value)
        self._state.ready = all(part.state in ("up", "failed") for part in self._state.parts.values())
        if self._state.ready:
            self._on_ready()
        self._write()

    async def run(self) -> None:
        """Look after all, until cancelled."""
        while True:
            try:
                if self._groups.check():
                    self._say("keeper", "was gone; another watches over the parts")
            except OSError as error:
                self._say("keeper", f"is gone and cannot be started: {refusal(error) or error}")
            if self._unwritten:
                self._write()
            self._watch_disk(free(self._home.path))
            await asyncio.sleep(EVERY)

    def _write(self) -> None:
        try:
            self._state.write(self._home)
        except OSError as error:
            if not self._unwritten:
                self._say("home", f"the state cannot be written: {refusal(error) or error}")
            self._unwritten = True
        else:
            self._unwritten = False

    def _watch_disk(self, room: int) -> None:
        full = room < ROOM
        if full and not self._full:
            self._say("home", f"its disk is full ({megabytes(room)} free): free some room, and all goes on by itself")
        elif self._full and not full:
            self._say("home", f"there is room on its disk again ({megabytes(room)})")
        self._full = full
