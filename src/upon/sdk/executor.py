"""`concurrent.futures` at a site: submit a function and its arguments, get a Future.

    with Executor(site="local") as ex:
        assert ex.submit(pow, 2, 10).result() == 1024
        thumbnail = ex.submit("thumbs.make", "/data/a.png")  # a registered function, by name[@version]

What differs from the executors of the standard library, because the work is elsewhere:
- `running()` becomes True a moment after the function has begun, and for one that is quickly done not at all. It stays
  True while the task is tried again.
- `cancel()` succeeds at any time before the result is there: the future is cancelled at once; the task, if it is queued
  at the site, never starts, and if it runs, its process is killed. A result that was under way is dropped.
- Ctrl-C cancels so all that is not done, and says so, unless the executor is to `keep` it.
- An exception that the function raised has an `upon.errors.RemoteTraceback` as its cause; a task that did not get as
  far raises WorkerLost, TaskTimeout, TaskCancelled, FunctionLoadError, ResultError or another of `upon.errors`.
- `submit` raises FunctionError or InputError for what cannot be serialized, and waits while much is unsent.
- Callbacks run in one thread of the executor's; a callback must not wait for another future of it.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from concurrent import futures
from types import TracebackType
from typing import Any, Literal, TypeVar

from upon.errors import InputError, ServiceUnavailable
from upon.messages import Retry
from upon.sdk import nested
from upon.sdk.connection import PATIENCE, Connection
from upon.sdk.future import TaskFuture
from upon.sdk.known_site import KnownSite
from upon.sdk.mapping import Map
from upon.sdk.options import Options
from upon.sdk.remote_store import RemoteStore
from upon.sdk.rest import Rest
from upon.sdk.submitter import Submitter
from upon.sdk.target import Finder
from upon.store.payloads import Payloads
from upon.topics import checked_site

T = TypeVar("T")
CLOSE = 2.0
"""Seconds that `shutdown` waits for the service to acknowledge the last of it, once all futures are done."""
ANSWER = 5.0
"""Seconds that `shutdown(cancel_futures=True)` waits for the site to say what had begun."""
MAX_GROUP = 200
"""Characters of a group's name that the service takes."""
STORE = 30.0
"""Seconds of attempts to reach the store through the service."""


def checked_group(group: str) -> str:
    """Return a group's name if it can be one. Raises InputError."""
    if len(group) > MAX_GROUP or not group.isprintable():
        raise InputError(f"group {group[:MAX_GROUP]!r}: 1 to {MAX_GROUP} printable characters")
    return group


class Executor(Submitter):
    """Runs functions at a site.

    Args:
        site: where; default ``local``. One that does not exist: each future raises SiteNotFound.
        home: the home folder whose profile names the service; default UPON_HOME, else the platform's.
        service, token: the service's address and a token, instead of the profile's.
        timeout, attempts, retry: see `options`.
        group: a name for what is submitted here: another process gets all of its results with
            `Client.futures(group)`. Default: one that no other executor has.
        keep: what is not done when Ctrl-C comes runs on; default: it is cancelled.
        patience: s to wait for a service that was there and is lost, before all futures fail with ServiceUnavailable.

    Raises:
        ServiceUnavailable: no service answers (within 5 s), or its address is not known.
        NotAuthenticated: the token is missing or wrong.
        ConfigError: the site's name cannot be one, or the profile is unreadable.
        InputError: an option is out of range, or the group's name cannot be one.
    """

    def __init__(
        self,
        site: str = "local",
        home: str | os.PathLike[str] | None = None,
        *,
        service: str | None = None,
        token: str | None = None,
        timeout: float | str | None = None,
        attempts: int | None = None,
        retry: Retry | None = None,
        group: str = "",
        keep: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(self, Options().but(timeout=timeout, attempts=attempts, retry=retry))
        self.site = checked_site(site)
        self._find, self._patience = Finder(home, service, token), patience
        self._shut_down, self._keep, self._group = False, keep, group and checked_group(group)
        self._lock = threading.Lock()
        self._maps: weakref.WeakSet[Map] = weakref.WeakSet()  # that go on by themselves
        self._connection = self._open()
        _open.add(self)

    def _open(self) -> Connection:
        rest = Rest(self._find, min(self._patience, STORE))
        payloads = Payloads(self._find.where, lambda: RemoteStore(rest))
        connection = Connection(
            self._find, site=self.site, patience=self._patience, payloads=payloads, group=self._group
        )
        connection.open()
        self._known_site = KnownSite(Rest(self._find, 0.0), self.site)
        self._maps.clear()
        if nested.is_inside(self.site):
            nested.watch(connection, self._known_site)
        weakref.finalize(self, connection.close).atexit = False
        return connection

    @property
    def group(self) -> str:
        """Under which name the service knows what is submitted here; a forked child has its own unless it was given."""
        return self._connection.group

    def _connected(self) -> Connection:
        """Return the connection; a forked child opens its own."""
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not self._connection.is_ours:
            with self._lock:
                if not self._connection.is_ours:
                    self._connection = self._open()
        return self._connection

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks.

        Args:
            wait: return when all futures are done; False: return at once, their results still arrive while this
                process lives.
            cancel_futures: cancel all that have not begun; what runs goes on to its end. Which is which the site says
                (the futures are cancelled when it has); one that does not answer within `ANSWER` s: what is not known
                to run is cancelled.

        Raises:
            KeyboardInterrupt: what is not done is cancelled, unless the executor is to `keep` it.
        """
        self._shut_down = True
        _open.discard(self)
        if not self._connection.is_ours:
            return
        try:
            for one in list(self._maps):
                if cancel_futures:
                    one.drop()
                elif not wait:
                    one.flush()
            waiting = self._unfinished()
            if cancel_futures:
                for future in waiting:
                    future.spare()
                self._connection.spare([future.id for future in waiting])
            if wait:
                if cancel_futures:
                    futures.wait(waiting, ANSWER)
                    for future in waiting:
                        if not (future.done() or future.running()):
                            future.cancel()
                while waiting or self._feed_maps():
                    futures.wait(waiting)
                    self._connection.deliver()
                    waiting = self._unfinished()  # what maps have sent meanwhile
            self._connection.close(CLOSE if wait else 0.0)
        except KeyboardInterrupt:
            self._interrupted()
            raise

    def _feed_maps(self) -> bool:
        """Have maps send what they have not sent yet; return whether there was something.

        A chunk that is done has the next one sent a moment later: in between nothing of a map is under way.
        """
        unfed = [one for one in list(self._maps) if one.goes_on]
        for one in unfed:
            one.feed()
        return bool(unfed)

    def _unfinished(self) -> list[TaskFuture[Any]]:
        try:
            return [one for one in self._connection.unfinished() if isinstance(one, TaskFuture)]
        except ServiceUnavailable:
            return []

    def _interrupted(self) -> None:
        """Cancel what is not done, or leave it running; say which."""
        self._shut_down = True
        _open.discard(self)
        for one in list(self._maps) if self._connection.is_ours else []:
            (one.flush if self._keep else one.drop)()
        left = self._unfinished() if self._connection.is_ours else []
        if not left:
            return
        what = f"{len(left):,} task{'s' if len(left) > 1 else ''} at site {self.site}"
        if self._keep:
            self._connection.close()
            print(f"upon: interrupted; left running: {what} (upon tasks list)", file=sys.stderr)
            return
        for future in left:
            future.cancel()
        self._connection.close(CLOSE)
        print(f"upon: interrupted; cancelled {what}: Executor(keep=True) would have let them run on", file=sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if isinstance(error, KeyboardInterrupt):
            self._interrupted()
        else:
            self.shutdown(wait=True)
        return False


_open: weakref.WeakSet[Executor] = weakref.WeakSet()


def _at_exit() -> None:
    """A script that uses no `with` is ended: its executors learn it here, also from a Ctrl-C that a prompt outlives."""
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1")
    for executor in list(_open):
        if interrupted:
            executor._interrupted()
        elif executor._connection.is_ours:
            for one in list(executor._maps):
                one.flush()


atexit.register(_at_exit)  # before the thread that does the I/O is closed: that was registered earlier
