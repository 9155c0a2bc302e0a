"""A rule whose function publishes what the rule fires for: it is stopped, and a dead letter says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.systems import System, wait_for

FUNCTION = """
def echo(home):
    from upon import Client, Event
    with Client(home) as client:
        client.publish(Event(type="chain.echo", source="/chain"))
"""
RULES = """
rules:
  - name: chain-echo
    upon: {{type: [chain.echo]}}
    run: {{function: chain.echo, args: ["{home}"]}}
"""


def test_a_rule_that_feeds_itself_stops_after_eight_firings(system: System, tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(FUNCTION)
    (tmp_path / "rules.yaml").write_text(RULES.format(home=system.home))
    system.run("functions", "register", f"{tmp_path}/echo.py:echo", "--name", "chain.echo")
    system.run("rules", "apply", f"{tmp_path}/rules.yaml")
    try:
        system.run("events", "publish", "--type", "chain.echo", "--source", "/test")

        def stopped() -> list[dict[str, Any]]:
            found = json.loads(system.run("deadletters", "list", "--json").stdout)
            return [one for one in found if "chain-echo" in one["reason"]]

        (letter,) = wait_for(stopped, "a dead letter about the chain")
        tasks = json.loads(system.run("tasks", "list", "--rule", "chain-echo", "--json").stdout)
        assert sorted(one["event"]["depth"] for one in tasks) == list(range(1, 9))
        (root,) = {one["event"]["root"] for one in tasks}
        assert f"descends from 8 firings of this very rule, beginning with event {root}" in letter["reason"]
        deepest = next(one for one in tasks if one["event"]["depth"] == 8)
        assert f"8 firings, from event {root} on" in system.run("tasks", "show", deepest["id"]).stdout
    finally:
        system.run("rules", "delete", "chain-echo")
