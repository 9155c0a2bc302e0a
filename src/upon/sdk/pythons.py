"""Which versions of Python the workers run, against this process's own: what of a call may have byte code in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from upon import api

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class Pythons:
    """The minor versions that run where something is to run.

    Attributes:
        there: such as ``3.11``; empty when nothing is known.
    """

    there: frozenset[str] = frozenset()

    @property
    def others(self) -> frozenset[str]:
        """Those that cannot run byte code of this process."""
        return self.there - {PYTHON}

    @property
    def is_none_ours(self) -> bool:
        """Whether it is known that no worker can run byte code of this process."""
        return bool(self.there) and PYTHON not in self.there

    def __str__(self) -> str:
        return " and ".join(sorted(self.there, key=lambda one: (len(one), one)))


UNKNOWN = Pythons()


def pythons_of(sites: Iterable[api.Site]) -> Pythons:
    """Return the versions that the managers of sites run."""
    return Pythons(frozenset(one.python for site in sites for one in site.managers if one.python))
