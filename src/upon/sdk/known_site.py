"""What an executor knows of its site: how many workers, and of which Python. Asked now and then, at no great cost."""

from __future__ import annotations

import contextlib
import time

from upon import api
from upon.errors import UponError
from upon.sdk.pythons import UNKNOWN, Pythons, pythons_of
from upon.sdk.rest import Rest, path

AGAIN = 30.0
"""Seconds for which an answer counts."""
WITHIN = 2.0
"""Seconds that an answer may take; without one, what was known before counts."""
WORKERS = 2
"""What a site counts as having whose dispatcher has said nothing yet."""


class KnownSite:
    """A site as the service last described it.

    Args:
        rest: the way to the service; it should not be one that is patient.
        name: the site's.
    """

    def __init__(self, rest: Rest, name: str) -> None:
        self._rest, self._name = rest, name
        self._asked = -AGAIN
        self._site: api.Site | None = None
        self._pythons = UNKNOWN

    def pythons(self) -> Pythons:
        """Return the versions of Python that its workers run."""
        if time.monotonic() - self._asked > AGAIN:
            self._now()
        return self._pythons

    def workers(self) -> int:
        """Return how many tasks the site runs at once."""
        site = self._now()
        return max(1, site.slots) if site is not None and site.slots else WORKERS

    def is_full(self) -> bool:
        """Return whether all its workers are taken; asked anew."""
        self._asked = -AGAIN
        site = self._now()
        return site is not None and 0 < site.slots <= site.busy

    def _now(self) -> api.Site | None:
        if time.monotonic() - self._asked > AGAIN:
            self._asked = time.monotonic()
            with contextlib.suppress(UponError, TimeoutError):
                sites = self._rest.ask("GET", path("sites"), list[api.Site], within=WITHIN)
                self._site = next((site for site in sites if site.name == self._name), self._site)
                self._pythons = pythons_of([self._site] if self._site is not None else [])
        return self._site
