"""Functions, invocations and tasks on the command line, as a user runs them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Said, called, process
from tests.systems import System, wait_for

FUNCTIONS = '''
import time

def add(a, b=2):
    """Add two numbers."""
    print("adding", a, b)
    return a + b

def refuse(what):
    raise ValueError(f"no {what}")

def as_set():
    return {1}

def sleep(seconds):
    time.sleep(seconds)
    return seconds

def speak(gate):
    import os
    print("it has begun")
    while not os.path.exists(gate):
        time.sleep(0.01)
    print("it ends")
'''
FIELDS = {
    "id", "function", "version", "site", "status", "rule", "event_id", "submitted", "started", "finished", "attempts",
}  # fmt: skip


@pytest.fixture(scope="module")
def registered(system: System, tmp_path_factory: pytest.TempPathFactory) -> System:
    file = tmp_path_factory.mktemp("functions") / "numbers_of_a_test.py"
    file.write_text(FUNCTIONS)
    for name in ("add", "refuse", "as_set", "sleep", "speak"):
        said = system.run("functions", "register", f"{file}:{name}", "--name", f"cli.{name}").stdout
        assert said.startswith(f"registered cli.{name}@")
    return system


def invoke(system: System, *words: str, check: bool = True) -> Said:
    """Run `upon invoke`; the home goes first, for what follows -- is the function's."""
    done = called("--home", str(system.home), "invoke", *words)
    assert not check or done.returncode == 0, done.stderr
    return done


def tasks(system: System, *filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(system.run("tasks", "list", "--json", *filters).stdout)
    return found


def test_the_same_code_is_the_same_version(registered: System, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def f():\n    return 1\n")
    first = registered.run("functions", "register", f"{tmp_path}/f.py:f").stdout
    assert first == "registered f.f@1\n"
    assert registered.run("functions", "register", f"{tmp_path}/f.py:f").stdout == first
    (tmp_path / "f.py").write_text("def f():\n    return 2\n")
    assert registered.run("functions", "register", f"{tmp_path}/f.py:f").stdout == "registered f.f@2\n"
    assert invoke(registered, "f.f@1").stdout == "1\n"
    assert invoke(registered, "f.f").stdout == "2\n"


def test_functions_are_listed_and_shown(registered: System) -> None:
    listed = json.loads(registered.run("functions", "list", "--json").stdout)
    assert {"cli.add", "cli.refuse"} <= {one["name"] for one in listed}
    assert "Add two numbers." in registered.run("functions", "list").stdout
    shown = registered.run("functions", "show", "cli.add@1").stdout
    assert "cli.add@1" in shown
    assert "def add(a, b=2):" in shown


def test_versions_are_listed_and_deleted(registered: System, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "g.py").write_text(f"def g():\n    return {number}\n")
        registered.run("functions", "register", f"{tmp_path}/g.py:g", "--name", "cli.gone")
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{name: cli-gone, upon: {type: [cli.gone]}, run: {function: cli.gone}}]\n")
    registered.run("rules", "apply", str(rules))
    refused = registered.run("functions", "delete", "cli.gone@2", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "function cli.gone@2 is what rule cli-gone runs" in refused.stderr
    deleted = registered.run("functions", "delete", "cli.gone@2", "--force")
    assert deleted.stdout == "deleted cli.gone@2, which cli-gone ran\n"
    assert deleted.stderr == "cli.gone is cli.gone@1 now\n"
    assert invoke(registered, "cli.gone").stdout == "1\n", "the version before is the newest"
    listed = registered.run("functions", "versions", "cli.gone").stdout.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["2", "deleted"], ["1", "newest"]]
    registered.run("functions", "delete", "cli.gone", "--force")
    registered.run("events", "publish", "--type", "cli.gone", "--id", "gone-1")

    def letters() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            registered.run("deadletters", "list", "--rule", "cli-gone", "--json").stdout
        )
        return found

    (letter,) = wait_for(letters, "an event of a rule without a function is a dead letter")
    assert (letter["event_id"], "function 'cli.gone' is deleted" in letter["reason"]) == ("gone-1", True)
    registered.run("rules", "delete", "cli-gone")
    assert "there is no version of cli.gone" not in registered.run("functions", "versions", "cli.gone", "--json").stdout


def test_a_result_is_printed_as_json(registered: System) -> None:
    assert invoke(registered, "cli.add", "--", "3", "4").stdout == "7\n"
    assert invoke(registered, "cli.add", "--kwargs", '{"a": [1], "b": [2]}').stdout.split() == [
        "[", "1,", "2", "]"
    ]  # fmt: skip
    assert invoke(registered, "cli.add", "--site", "local", "--", "text", "-more").stdout == '"text-more"\n'
    assert json.loads(invoke(registered, "cli.as_set").stdout) == {"python": "{1}"}


def test_a_failure_is_an_exit_code_and_a_message(registered: System) -> None:
    failed = invoke(registered, "cli.refuse", "--", "way", check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "ValueError: no way" in failed.stderr
    assert 'raise ValueError(f"no {what}")' in failed.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("invoke", "cli.nothing"), 1, "function 'cli.nothing' is not registered; there are:"),
        (("invoke", "cli.add@77", "--", "1"), 1, "has no version 77"),
        (("invoke", "cli.add", "--site", "mars", "--", "1"), 1, "site 'mars' does not exist; there are: local"),
        (("invoke", "cli.add", "--kwargs", "{a}"), 2, "--kwargs: not JSON"),
        (("invoke", "cli.add", "--kwargs", "3"), 2, "--kwargs: must be a JSON object"),
        (("functions", "show", "cli.nothing"), 1, "not registered"),
        (("functions", "register", "none.py:f"), 2, "none.py: there is no such file"),
        (("tasks", "show", "nothing"), 1, "nothing"),
        (("tasks", "cancel", "nothing"), 1, "nothing"),
    ],
)
def test_what_is_wrong_is_said(registered: System, words: tuple[str, ...], code: int, said: str) -> None:
    done = invoke(registered, *words[1:], check=False) if "invoke" in words else registered.run(*words, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_task_shows_its_way(registered: System) -> None:
    id = invoke(registered, "cli.add", "--no-wait", "--", "1").stdout.strip()
    wait_for(lambda: any(t["status"] == "succeeded" for t in tasks(registered) if t["id"] == id), "it is done")
    (task,) = [t for t in tasks(registered, "--function", "cli.add", "--status", "succeeded") if t["id"] == id]
    assert task.keys() >= FIELDS
    assert (task["function"], task["site"], task["status"], task["attempts"]) == ("cli.add", "local", "succeeded", 1)
    whole = json.loads(registered.run("tasks", "show", id, "--json").stdout)
    assert whole["result"] == 3
    assert [hop["name"] for hop in whole["timings"]] == [
        "submitted", "received", "dispatched", "started", "finished", "returned", "stored"
    ]  # fmt: skip
    shown = registered.run("tasks", "show", id[:13]).stdout
    for part in (id, "succeeded", "cli.add@1", "dispatched", "adding 1 2", "result"):
        assert part in shown
    assert id[:8] in registered.run("tasks", "list").stdout


def test_a_failed_task_shows_its_traceback(registered: System) -> None:
    invoke(registered, "cli.refuse", "--", "show", check=False)
    newest = tasks(registered, "--function", "cli.refuse", "--status", "failed", "--limit", "1")[0]
    assert newest["error"]["type"] == "ValueError"
    shown = registered.run("tasks", "show", newest["id"]).stdout
    assert "ValueError: no show" in shown
    assert "in refuse" in shown


def test_a_running_task_is_cancelled(registered: System) -> None:
    id = invoke(registered, "cli.sleep", "--no-wait", "--", "600").stdout.strip()
    wait_for(lambda: id in {t["id"] for t in tasks(registered)}, "it is known")
    registered.run("tasks", "cancel", id)

    def cancelled() -> bool:
        return bool(json.loads(registered.run("tasks", "show", id, "--json").stdout)["status"] == "cancelled")

    wait_for(cancelled, "it is cancelled")
    waited = registered.run("tasks", "list", "--status", "cancelled", "--json").stdout
    assert id in waited


def test_what_a_task_prints_is_seen_while_it_runs(registered: System, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    id = invoke(registered, "cli.speak", "--no-wait", "--", str(gate)).stdout.strip()
    wait_for(lambda: id in {t["id"] for t in tasks(registered)}, "it is known")
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(process, "--home", str(registered.home), "tasks", "logs", id, "--follow")
        wait_for(lambda: registered.run("tasks", "logs", id).stdout == "it has begun\n", "its output is there")
        shown = registered.run("tasks", "show", id).stdout
        assert "printed so far\nit has begun" in shown
        assert not following.done()
        gate.touch()
        assert following.result().stdout == "it has begun\nit ends\n"
    assert registered.run("tasks", "logs", id[:8]).stdout == "it has begun\nit ends\n"
    found = json.loads(registered.run("tasks", "logs", id, "--json").stdout)
    assert (found["status"], found["text"]) == ("succeeded", "it has begun\nit ends\n")


def test_a_timeout_is_a_failure(registered: System) -> None:
    failed = invoke(registered, "cli.sleep", "--timeout", "0.2", "--", "600", check=False)
    assert failed.returncode == 1
    assert "TaskTimeout" in failed.stderr


def test_a_site_is_drained_and_resumed(registered: System) -> None:
    assert "nothing more is started" in registered.run("sites", "drain", "local", "--wait").stdout
    try:
        shown = json.loads(registered.run("sites", "show", "local", "--json").stdout)
        assert (shown["draining"], shown["running"]) == (True, 0)
        id = invoke(registered, "cli.add", "--no-wait", "--", "21").stdout.strip()
        registered.kill("dispatcher")  # the next one knows that its site is closed
        registered.wait_up()
        wait_for(
            lambda: "upon sites resume" in registered.run("sites", "show", "local").stdout,
            "a site that is closed still",
        )
        assert json.loads(registered.run("tasks", "show", id, "--json").stdout)["status"] == "pending"
    finally:
        registered.run("sites", "resume", "local")
    wait_for(
        lambda: json.loads(registered.run("tasks", "show", id, "--json").stdout)["status"] == "succeeded", "its result"
    )


def test_a_manager_is_replaced_by_hand(registered: System) -> None:
    def managers() -> list[str]:
        return [one["id"] for one in json.loads(registered.run("sites", "show", "local", "--json").stdout)["managers"]]

    wait_for(managers, "a manager")
    (before,) = managers()
    registered.run("sites", "drain", "local", "--manager", before, "--wait")
    wait_for(managers, "another manager")  # the supervisor has started another one
    assert before not in managers()
    refused = registered.run("sites", "drain", "local", "--manager", "nobody", check=False)
    assert refused.returncode == 2
    assert "has no manager 'nobody'; there are: " in refused.stderr


def test_sites_are_listed(registered: System) -> None:
    (site,) = json.loads(registered.run("sites", "list", "--json").stdout)
    assert (site["name"], site["state"]) == ("local", "up")
    assert "local" in registered.run("sites", "list").stdout
