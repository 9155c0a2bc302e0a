"""Trying again on the command line, end to end: a dead letter once its rule is mended, a task that failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.systems import System, wait_for

FUNCTIONS = '''
import pathlib

def note(file):
    """Write a line for each run."""
    with open(file, "a") as opened:
        opened.write("ran\\n")

def needs(file):
    return pathlib.Path(file).read_text()
'''


def asked(system: System, *words: str) -> Any:
    return json.loads(system.run(*words, "--json").stdout)


def test_a_mended_rule_fires_once_for_its_dead_letter(system: System, tmp_path: Path) -> None:
    functions, rules, ran = tmp_path / "f.py", tmp_path / "rules.yaml", tmp_path / "ran"
    functions.write_text(FUNCTIONS)
    system.run("functions", "register", f"{functions}:note", "--name", "retries.note")
    run = '{{function: retries.note, args: ["${{{0}}}"]}}'
    rule = f"rules: [{{{{name: retries-note, upon: {{{{type: [retries.note]}}}}, run: {run}}}}}]\n"
    rules.write_text(rule.format("data.nope"))
    system.run("rules", "apply", str(rules))
    system.run(
        "events", "publish", "--type", "retries.note", "--id", "note-1", "--data", json.dumps({"file": str(ran)})
    )
    (letter,) = wait_for(lambda: asked(system, "deadletters", "list", "--rule", "retries-note"), "the dead letter")
    assert (letter["event_id"], letter["function"], "nope" in letter["reason"]) == ("note-1", "retries.note", True)
    assert "note-1" in system.run("deadletters", "show", letter["id"][:13]).stdout
    assert "dead letter" in system.run("status").stdout
    assert "dead letter" in system.run("doctor", check=False).stdout
    rules.write_text(rule.format("data.file"))
    applied = system.run("rules", "apply", str(rules))
    assert "dead letter" in applied.stdout + applied.stderr
    assert not ran.exists()
    assert system.run("deadletters", "retry", letter["id"]).stdout == "1 tried again\n"
    succeeded = ("tasks", "list", "--rule", "retries-note", "--status", "succeeded")
    wait_for(lambda: asked(system, *succeeded), "the function has run")
    again = system.run("deadletters", "retry", letter["id"], check=False)
    assert (again.returncode, "no open dead letter has this id" in again.stderr) == (1, True)
    assert len(asked(system, "tasks", "list", "--rule", "retries-note")) == 1
    assert ran.read_text() == "ran\n"
    assert asked(system, "deadletters", "list", "--rule", "retries-note") == []
    system.run("rules", "delete", "retries-note")


def test_a_failed_task_is_done_again_and_its_history_kept(system: System, tmp_path: Path) -> None:
    functions, file = tmp_path / "g.py", tmp_path / "needed"
    functions.write_text(FUNCTIONS)
    system.run("functions", "register", f"{functions}:needs", "--name", "retries.needs")
    system.run("invoke", "retries.needs", str(file), check=False)
    (failed,) = wait_for(
        lambda: asked(system, "tasks", "list", "--function", "retries.needs", "--status", "failed"), "it failed"
    )
    assert "failed task" in system.run("status").stdout
    file.write_text("here")
    assert system.run("tasks", "retry", failed["id"]).stdout == "1 run again\n"

    def done() -> dict[str, Any] | None:
        task: dict[str, Any] = asked(system, "tasks", "show", failed["id"])
        return task if task["status"] == "succeeded" else None

    task = wait_for(done, "it has succeeded")
    assert (task["result"], task["generation"]) == ("here", 1)
    (before,) = task["history"]
    assert (before["status"], before["error"]["type"]) == ("failed", "FileNotFoundError")
