"""What a client can do about dead letters."""

from __future__ import annotations

from typing import Literal

from upon import api
from upon.sdk.rest import Rest, path


class DeadLetters:
    """A part of `upon.Client`: see, try again and drop dead letters."""

    _rest: Rest

    def deadletters(
        self,
        *,
        status: Literal["open", "retried", "dropped", "all"] | None = None,
        rule: str | None = None,
        reason: str | None = None,
        since: str | None = None,
        until: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[api.DeadLetterView]:
        """Return what could not be processed, newest first, without what it holds.

        Args:
            status: open (the default): nobody dealt with them.
            reason: a part of the reason.
            since, until: RFC 3339, when it was given up.
            after: the last id of the page before.
            limit: how many at most, default 50.
        """
        where = path("deadletters", status=status, rule=rule, reason=reason, since=since, until=until, after=after,
                     limit=limit)  # fmt: skip
        return self._rest.ask("GET", where, list[api.DeadLetterView])

    def deadletter(self, id: str) -> api.DeadLetterView:
        """Return a dead letter with the beginning of what it holds, by its id or the beginning of that.

        Raises:
            DeadLetterNotFound: there is none, or more than one.
        """
        return self._rest.ask("GET", path("deadletters", id or " "), api.DeadLetterView)

    def retry_deadletters(self, choice: api.LetterChoice) -> api.Dealt:
        """Try dead letters again: a rule that could not fire for an event fires for it now, once.

        Returns:
            What was tried again, what could not be and why; `after` if there may be more: ask again with it.
        """
        return self._rest.ask("POST", path("deadletters", "retry"), api.Dealt, choice)

    def drop_deadletters(self, choice: api.LetterChoice) -> api.Dealt:
        """Mark dead letters as dealt with. Returns as `retry_deadletters`."""
        return self._rest.ask("POST", path("deadletters", "drop"), api.Dealt, choice)
