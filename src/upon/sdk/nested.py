"""Submitting from inside a task to its own site: said, when all its workers may be waiting for each other.

A task that waits for a task holds its worker meanwhile. If all workers are held so, what they wait for never begins.
Nobody can tell that from a site that is merely busy, so nothing is broken off: the task's output says it while it runs
(`upon tasks logs`), once.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from upon.errors import UponError
from upon.sdk.connection import Connection
from upon.sdk.future import TaskFuture
from upon.sdk.known_site import KnownSite

AFTER = 10.0
"""Seconds in which none of the submitted tasks has begun, after which it is said."""


def is_inside(site: str) -> bool:
    """Tell whether this process is a worker of this site."""
    return os.environ.get("UPON_SITE") == site and "upon.endpoint.worker" in sys.modules


def watch(connection: Connection, site: KnownSite) -> None:
    """Say once, on stderr, that tasks wait for a worker of a site where this process holds one; returns at once."""
    threading.Thread(target=_watch, args=(connection, site), name="upon-nested", daemon=True).start()


def _watch(connection: Connection, site: KnownSite) -> None:
    since, waiting = time.monotonic(), set[str]()
    while connection.is_usable:
        time.sleep(AFTER / 10)
        try:
            left = [one for one in connection.unfinished() if isinstance(one, TaskFuture)]
        except UponError:
            return
        now = {one.id for one in left}
        if not now or not waiting <= now or any(one.running() for one in left):
            since, waiting = time.monotonic(), now  # something goes on
            continue
        waiting = waiting or now
        if time.monotonic() - since > AFTER and site.is_full():
            print(
                f"upon: none of {len(now)} tasks that this task has submitted to its own site has begun for "
                f"{time.monotonic() - since:.0f} s: all {site.workers()} workers are taken. If they are by tasks that "
                "wait as this one does, none will ever end: cancel some, and submit to another site, give this one "
                "more workers, or let the caller submit what follows.",
                file=sys.stderr,
                flush=True,
            )
            return
