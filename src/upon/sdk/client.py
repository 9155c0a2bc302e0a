"""The service by hand: publish events, register functions, invoke them, see tasks, rules, sites and dead letters.

    client = Client()
    client.publish(Event(type="sample.ready", source="/lab/7", subject="S-17", data={"mass": 3}))
    client.register(make_thumbnail, "thumbs.make")
    print(client.invoke("thumbs.make", "/data/a.png").result())

Answers are structs of `upon.api`. Every call may be made again after a lost connection, and is, for `PATIENCE`
seconds: what it creates carries its id or is named by its content. To send Python objects as arguments, use `Executor`.
A task is named by its id or by the future that `invoke` returns.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from upon import api, serialize
from upon.chains import descending
from upon.errors import FunctionNotFound, TaskNotFound
from upon.events import Event
from upon.ids import new_id
from upon.sdk import functions
from upon.sdk.connection import Connection
from upon.sdk.deadletters import DeadLetters
from upon.sdk.future import TaskFuture, id_of
from upon.sdk.options import Options
from upon.sdk.output import Output
from upon.sdk.pythons import PYTHON, Pythons, pythons_of
from upon.sdk.remote_store import RemoteStore
from upon.sdk.rest import Rest, encoded, path
from upon.sdk.rules import Rules
from upon.sdk.target import Finder
from upon.sdk.tasks import Tasks
from upon.sdk.watching import Changes, Outcomes
from upon.store.payloads import Payloads
from upon.store.reference import ARGUMENTS, MAX_SIZE, is_reference

PATIENCE = 5.0
"""Seconds of attempts before a call raises ServiceUnavailable."""
APPEAR = 3.0
"""Seconds that a task may take from its invocation until the task store knows it."""


class Client(DeadLetters, Output, Rules, Tasks):
    """A client of the service. Threads may share it; a forked child may go on using it.

    Args:
        home: the home folder whose profile names the service; default UPON_HOME, else the platform's.
        service, token: the service's address and a token, instead of the profile's.
        patience: s of attempts before a call raises ServiceUnavailable.

    Raises:
        ConfigError: the profile cannot be read. (Every method: ServiceUnavailable, NotAuthenticated.)
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        service: str | None = None,
        token: str | None = None,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._find = Finder(home, service, token)
        self._rest = Rest(self._find, patience)
        self._payloads = Payloads(self._find.where, lambda: RemoteStore(self._rest))
        self._outcomes: Outcomes | None = None
        self._results: Connection | None = None  # on which the results of what is invoked here arrive

    # ── events ────────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, event: Event | Sequence[Event]) -> list[str]:
        """Publish an event, or several in order; return their ids once Kafka has them.

        Within a task that a rule fired, they carry on the chain that led there (docs/rules.md, Chains).

        Raises:
            EventError, PayloadTooLarge: the service does not take one of them; none is published.
        """
        events = [event] if isinstance(event, Event) else list(event)
        body = [replace(one, extensions=descending(one.extensions)).to_dict() for one in events]
        return self._rest.ask("POST", path("events"), api.Published, body).ids if events else []

    def events(
        self,
        *,
        type: str | Sequence[str] | None = None,
        source: str | None = None,
        subject: str | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int | None = None,
    ) -> api.PastEvents:
        """Return the newest events of a time, oldest first, as far as Kafka has them still.

        Args:
            type: only of this type, or of one of these; a ``*`` at its end stands for anything.
            source, subject: only of this source, about this; in the same form.
            since, until: RFC 3339, when Kafka had them.
            limit: how many at most, default 50.

        Returns:
            The events; `more`: there may be older ones; `complete_since`: how far back was read, if that was not all.
        """
        where = path("events", type=type, source=source, subject=subject, since=since, until=until, limit=limit)
        return self._rest.ask("GET", where, api.PastEvents)

    def watch(
        self, *, events: bool = False, tasks: bool = False, on_seen: Callable[[], object] | None = None
    ) -> Changes:
        """Return events as they pass and tasks as they change, from now on: an endless iterator.

        for change in client.watch(events=True):
            print(change.event["type"])
        """
        return Changes(self._find, events=events, tasks=tasks, on_seen=on_seen)

    # ── functions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def register(
        self, function: Callable[..., Any], name: str | None = None, *, description: str | None = None
    ) -> api.Function:
        """Register a function's next version; the same code under the same name gives the same version again.

        Args:
            function: any function that pickles. Where a site has workers of another minor version of Python, it travels
                as source text if it can (docs/functions.md).
            name: for rules and `invoke`; default its qualified name.
            description: default the first line of its docstring.

        Raises:
            FunctionError: it does not pickle, or its name cannot be one.
        """
        everywhere = pythons_of(self.sites())
        code = functions.code_of(function, Pythons(everywhere.there | {PYTHON}))  # it may be for a site to come
        body = api.NewFunction(
            name=name or functions.name_of(function),
            body=code.body,
            python=code.python,
            description=functions.description_of(function) if description is None else description,
            source=functions.source_of(function),
        )
        return self._rest.ask("POST", path("functions"), api.Function, body)

    def functions(self) -> list[api.Function]:
        """Return all versions of all functions, newest first."""
        return self._rest.ask("GET", path("functions"), list[api.Function])

    def function(self, name: str) -> api.Function:
        """Return a function by ``name[@version]``.

        Raises:
            FunctionNotFound: no such name or version.
        """
        if not name:
            raise FunctionNotFound("an empty name is no function's")
        return self._rest.ask("GET", path("functions", name), api.Function)

    def function_versions(self, name: str) -> list[api.FunctionVersion]:
        """Return all versions that there ever were of a function, newest first: which rules run it, what is deleted.

        Raises:
            FunctionNotFound: there never was such a function.
        """
        return self._rest.ask("GET", path("functions", name or " ", "versions"), list[api.FunctionVersion])

    def delete_function(self, function: str, *, force: bool = False) -> list[api.FunctionVersion]:
        """Delete a version of a function, or all of them; return what is gone. The version before is the newest then.

        Tasks that are queued run all the same. An event that meets a rule whose function is gone is a dead letter.

        Args:
            function: ``name@version``, or a name for all its versions.
            force: also what rules run.

        Raises:
            FunctionNotFound: no such name or version.
            Conflict: rules run it; the message names them.
        """
        where = path("functions", function or " ", force="true" if force else None)
        return self._rest.ask("DELETE", where, list[api.FunctionVersion])

    # ── tasks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def invoke(
        self, function: str, /, *args: Any, site: str = "local", timeout: float | str | None = None, **kwargs: Any
    ) -> TaskFuture[Any]:
        """Run a registered function with plain (JSON) arguments; return a future at once, with the task's `id`.

        The future is one of `concurrent.futures`. The task does not depend on it: it runs on when this process ends.

        Args:
            function: ``name[@version]``; the newest version by default.
            site: where it runs.
            timeout: s, or a duration such as ``10m``, that one attempt may take; default none.

        Raises:
            FunctionNotFound, SiteNotFound: with the names that there are.
            InputError: an argument is not plain data, or the timeout is no duration.
            PayloadTooLarge: the arguments are over the record limit, and no store is in reach.
            StoreError: the store has no room for them.
            ServiceUnavailable: no service answers, or its address is not known.
        """
        results = self._usable_results()
        future: TaskFuture[Any] = TaskFuture(new_id(), results)
        results.expect(future.id, site, future)
        body = self._new(function, args, kwargs, site, Options().but(timeout=timeout), future.id, results.group)
        try:
            self._rest.ask("POST", path("invocations"), api.Submitted, body)
        except BaseException:
            results.forget(future.id)
            self._payloads.free(body.payload, future.id)
            raise
        return future

    def start(
        self,
        function: str,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        site: str = "local",
        options: Options | None = None,
    ) -> str:
        """Like `invoke`, for whoever does not want the result here; return the task's id.

        Arguments may be called as they like, `site` and `options` too. Retries are the service's own.
        """
        body = self._new(function, args, kwargs or {}, site, options or Options(), new_id(), "")
        return self._rest.ask("POST", path("invocations"), api.Submitted, body).id

    def wait(self, id: str | TaskFuture[Any], timeout: float | None = None) -> Any:
        """Wait for a task, whoever submitted it, and return its value.

        Raises:
            TimeoutError: it was not done within `timeout` seconds; it runs on.
            TaskNotFound: no such task.
            Exception: what the function raised, or a TaskError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if isinstance(id, TaskFuture) and not id.cancelled():
            try:
                return id.result(timeout)
            except TimeoutError:
                if id.done():  # the function's own
                    raise
                raise TimeoutError(f"task {id.id} is not done yet; it runs on") from None
        self._await_known(id_of(id), deadline)
        return self._known_outcomes().wait(id_of(id), deadline)

    # ── sites ───────────────────────────────────────────────────────────────────────────────────────────────────

    def sites(self) -> list[api.Site]:
        """Return the sites with what their dispatchers last said."""
        return self._rest.ask("GET", path("sites"), list[api.Site])

    def drain(self, site: str, *managers: str, on: bool = True) -> None:
        """Have a site start nothing more (`on=False`: go on), or these managers end when nothing runs there."""
        self._rest.ask("POST", path("sites", site, "drain"), api.Drain, api.Drain(managers=list(managers), on=on))

    def summary(self) -> api.Summary:
        """Return the numbers of what somebody should look at."""
        return self._rest.ask("GET", path("summary"), api.Summary)

    def status(self) -> api.SystemStatus:
        """Return what the service knows of all parts."""
        return self._rest.ask("GET", path("status"), api.SystemStatus)

    def _new(  # noqa: PLR0917
        self,
        function: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        site: str,
        options: Options,
        id: str,
        group: str,
    ) -> api.NewInvocation:
        more = options.described()
        new = api.NewInvocation(
            function=function, site=site, args=list(args), kwargs=kwargs, id=id, group=group, **more
        )
        as_json = encoded(new)
        if len(as_json) <= self._payloads.limit:
            return new
        plain = msgspec.json.decode(as_json)  # what the service would have made of it
        payload = serialize.dumps_plain([plain["args"], plain["kwargs"]], MAX_SIZE)
        payload = self._payloads.led(payload, id, ARGUMENTS)
        return replace(new, args=[], kwargs={}, payload=payload) if is_reference(payload) else new

    # ── how `wait` is told ────────────────────────────────────────────────────────────────────────────────────────

    def _await_known(self, id: str, deadline: float | None) -> None:
        """Return when the task store knows the task, which may have been submitted a moment ago."""
        give_up = time.monotonic() + APPEAR
        while True:
            try:
                self.task(id)
                return
            except TaskNotFound:
                now = time.monotonic()
                if now > give_up or (deadline is not None and now > deadline):
                    raise
            time.sleep(0.02)

    def _known_outcomes(self) -> Outcomes:
        if self._outcomes is None or not self._outcomes.is_usable:
            self._outcomes = Outcomes(self._find, self._payloads)
            weakref.finalize(self, self._outcomes.close).atexit = False
        return self._outcomes

    def _usable_results(self) -> Connection:
        if self._results is None or not self._results.is_usable:
            self._results = Connection(self._find, payloads=self._payloads)
            self._results.open()
            weakref.finalize(self, self._results.close).atexit = False
        return self._results

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Close the connections; the next call would open them again. Futures that are not done go on being served."""
        self._rest.close()
        if self._results is not None and self._results.is_usable:
            self._results.close()
        self._results = None
        if self._outcomes is not None and self._outcomes.is_usable:
            self._outcomes.close()
        self._outcomes = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
