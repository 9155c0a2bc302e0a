"""What a client can do about rules."""

from __future__ import annotations

from upon import api
from upon.sdk.rest import Rest, path

PAGE = 1_000
"""Rules that are asked for at once: as many as the service gives."""


class Rules:
    """A part of `upon.Client`: apply, check, list, roll back, disable and delete rules."""

    _rest: Rest

    def apply_rules(
        self, yaml: str, file: str = "<rules>", *, again: bool = False, prune: bool = False
    ) -> list[api.Rule]:
        """Put rules in force, all or none; return how they stand, what changed, and what is probably not meant.

        Args:
            yaml: the rules as text.
            file: their origin, for messages and for `prune`.
            again: they fire again for what they have fired for.
            prune: delete what came from `file` before and is not in it any more.

        Raises:
            RuleError: the first thing that is wrong, with its place.
        """
        return self._rest.ask(
            "POST", path("rules"), list[api.Rule], api.NewRules(yaml=yaml, file=file, again=again, prune=prune)
        )

    def check_rules(self, yaml: str, file: str = "<rules>", *, prune: bool = False) -> list[api.Rule]:
        """Return what `apply_rules` would, and change nothing. Raises as it does."""
        body = api.NewRules(yaml=yaml, file=file, prune=prune)
        return self._rest.ask("POST", path("rules", "check"), list[api.Rule], body)

    def prune_rules(self, yaml: str, file: str) -> list[api.Rule]:
        """Take out of force what came from `file` and is not in `yaml`; return it."""
        body = api.NewRules(yaml=yaml, file=file)
        return self._rest.ask("POST", path("rules", "prune"), list[api.Rule], body)

    def enable_rule(self, name: str, enabled: bool = True) -> api.Rule:
        """Let a rule fire, or (False) keep it from firing, also when it is applied again.

        Raises:
            RuleNotFound: no such rule.
        """
        return self._rest.ask("POST", path("rules", name or " ", "enable" if enabled else "disable"), api.Rule)

    def rollback_rule(self, name: str, revision: int | None = None) -> api.Rule:
        """Put an earlier revision of a rule in force; default the one before.

        Raises:
            RuleNotFound: no such rule or revision.
        """
        return self._rest.ask("POST", path("rules", name or " ", "rollback", revision=revision), api.Rule)

    def rule_history(self, name: str) -> list[api.RuleThen]:
        """Return how a rule stood, newest first.

        Raises:
            RuleNotFound: there never was such a rule.
        """
        return self._rest.ask("GET", path("rules", name or " ", "history"), list[api.RuleThen])

    def rules(self) -> list[api.Rule]:
        """Return the rules in force, by name, however many there are."""
        found: list[api.Rule] = []
        while True:
            where = path("rules", after=found[-1].name if found else None, limit=PAGE)
            page = self._rest.ask("GET", where, list[api.Rule])
            found += page
            if len(page) < PAGE:
                return found

    def delete_rule(self, name: str) -> None:
        """Take a rule out of force.

        Raises:
            RuleNotFound: no such rule.
        """
        self._rest.ask("DELETE", path("rules", name or " "), type(None))
