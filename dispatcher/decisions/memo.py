"""Results that are given again: of calls that are the same as one that has succeeded, and said that they may be.

The same: the same code, with the same serialized arguments. Whoever asks says that it may (`Invocation.memoize`): only
he knows that the function has no effect beside its value. A call that is the same as one under way waits for that one.
Bounded in entries, bytes and age; what was not used for the longest time goes first. It ends with its dispatcher.

Pure. Not here: large payloads; a reference names one task's own (`upon.store`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

from upon.messages import Invocation
from upon.store.reference import is_reference

Key = tuple[str, int, bytes]
AROUND = 200
"""Bytes that an entry takes beside its value."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A result.

    Attributes:
        id: of the invocation that ran.
        payload, preview: as in its outcome.
        until: monotonic s.
    """

    id: str
    payload: bytes
    preview: str
    until: float

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.preview) + AROUND


def key_of(invocation: Invocation) -> Key | None:
    """Return what makes calls the same; None: this one is like no other."""
    if not invocation.memoize or is_reference(invocation.payload):
        return None
    return invocation.code, invocation.items, sha256(invocation.payload).digest()


class Memo:
    """The results that a site may give again.

    Args:
        entries, size: how many, and how many bytes of them, at most; 0 entries: none.
        age: s for which one is kept; 0 = without end.

    Attributes:
        hits: how often one was given again.
    """

    def __init__(self, entries: int = 0, size: int = 0, age: float = 0.0) -> None:
        self._most, self._size, self._age = entries, size, age
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[
            Key, tuple[str, list[str]]
        ] = {}  # which of those that are the same runs; who waits for it
        self.hits = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, now: float) -> Entry | None:
        """Return a result of the same call; `now`: monotonic s."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry

    def leads(self, key: Key, id: str) -> bool:
        """Take in that a call has come; return whether it is to run. If not, it waits: see `ended`."""
        if not self._most:
            return True
        first, waiting = self._under_way.setdefault(key, (id, []))
        if first != id:
            waiting.append(id)
        return first == id

    def ended(self, key: Key, id: str) -> list[str]:
        """A call has ended: return the ids of those that wait for it."""
        if self.leader(key) != id:
            return []
        return self._under_way.pop(key)[1]

    def leader(self, key: Key) -> str | None:
        """Return which of those that are the same runs, None: none does."""
        return self._under_way[key][0] if key in self._under_way else None

    def put(self, key: Key, id: str, payload: bytes, preview: str, now: float) -> None:
        """Keep the value of a call that succeeded."""
        if not self._most or is_reference(payload):
            return
        if key in self._entries:
            self._drop(key)
        entry = Entry(id, payload, preview, now + self._age if self._age else float("inf"))
        self._entries[key] = entry
        self._bytes += entry.size
        while len(self._entries) > self._most or self._bytes > self._size:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        self._bytes -= self._entries.pop(key).size
