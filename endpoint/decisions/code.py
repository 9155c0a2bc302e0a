"""The functions' bodies that a manager keeps for its workers, by content hash, within a bound of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from upon.endpoint.channel import Code

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of bodies a manager keeps; past it, what was not used for the longest time goes (the dispatcher has it)."""


class CodeCache:
    """Bodies by hash, least recently used first."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self._limit, self._bytes = limit, 0
        self._codes: OrderedDict[str, Code] = OrderedDict()

    def __contains__(self, code: str) -> bool:
        return code in self._codes

    def __iter__(self) -> Iterator[str]:
        return iter(self._codes)

    def add(self, code: Code) -> None:
        """Keep a body; one that alone is over the limit is kept until the next comes."""
        if code.hash in self._codes:
            return
        self._codes[code.hash] = code
        self._bytes += len(code.body)
        while self._bytes > self._limit and len(self._codes) > 1:
            _, gone = self._codes.popitem(last=False)
            self._bytes -= len(gone.body)

    def get(self, code: str) -> Code | None:
        """Return a body, None if it is not here (any more)."""
        found = self._codes.get(code)
        if found is not None:
            self._codes.move_to_end(code)
        return found
