"""Symbolic links that lead out of a watched folder: which of them may be announced?

A detector's software that links new data into a folder shall simply work. A stranger who may write to that folder shall
not have our functions, which run as us, read for him what he cannot read himself. So a link out of the folder counts if
whoever made it could have put the content there himself: it belongs to us, to root, or to the owner of the file that it
leads to (Apache's httpd has the same rule, `SymLinksIfOwnerMatch`). Links within the folder always count.

Not here: what is at the path by the time a function opens it. docs/sources.md tells how to compare.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass

LONGEST = 40
"""Links on one way; the kernel follows no more."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way from a folder to the file that is meant by a path below it.

    Attributes:
        target: absolute path of the file, without links.
        inside: whether that is in the folder.
        owner: user id of the file.
        links: user ids of the links on the way.
    """

    target: str
    inside: bool
    owner: int
    links: frozenset[int]


def way(path: str, folder: str) -> Way:
    """Follow a path, link by link.

    Args:
        path: absolute, below `folder`.
        folder: absolute; may be a link itself, or behind one.

    Raises:
        OSError: there is nothing, or a loop of links.
    """
    base = os.path.realpath(folder)
    here, links, followed = base, set(), 0
    rest = _names(os.path.relpath(path, folder))
    while rest:
        name = rest.pop()
        if name == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, name)
        found = os.lstat(there)
        if not stat.S_ISLNK(found.st_mode):
            here = there
            continue
        links.add(found.st_uid)
        followed += 1
        if followed > LONGEST:
            raise OSError(f"{path}: more than {LONGEST} links")
        leads = os.readlink(there)
        if leads.startswith("/"):
            here = "/"
        rest += _names(leads)
    return Way(here, here.startswith(base.rstrip("/") + "/"), os.lstat(here).st_uid, frozenset(links))


def trusted(links: Collection[int], owner: int, me: int) -> bool:
    """Return whether links of these users may lead us to a file.

    Args:
        links: user ids of the links.
        owner: user id of the file.
        me: ours.
    """
    return set(links) <= {owner, me, 0}


def refusal(path: str, folder: str) -> str | None:
    """Return why the file at a path must not be announced, None if it may be."""
    try:
        found = way(path, folder)
    except OSError:
        return None  # gone meanwhile: nothing is behind it
    if found.inside or trusted(found.links, found.owner, os.geteuid()):
        return None
    return (
        f"a link of another user leads out of the folder, to {found.target}; let the owner of that file make the link, "
        "or watch the folder that it is in"
    )


def _names(path: str) -> list[str]:
    """Return the names in a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
