"""How far one partition is read, for those who wait until a record of it has been taken in. No I/O."""

from __future__ import annotations

import asyncio


class Progress:
    """Where a reader stands.

    Attributes:
        next: the offset after the last record that was taken in.
    """

    def __init__(self) -> None:
        self.next = 0
        self._moved = asyncio.Event()

    def took(self, offset: int) -> None:
        """Say that the record at this offset has been taken in; a log that was made anew begins at 0 again."""
        self.next = offset + 1
        self._moved.set()

    async def reach(self, end: int) -> None:
        """Return once what stands before this offset has been taken in."""
        while self.next < end:
            self._moved.clear()
            await self._moved.wait()
