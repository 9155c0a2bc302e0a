"""Rules on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.commands import called
from tests.systems import System, wait_for

GOOD = """
version: 1
rules:
  - name: cli-doubles
    upon: {type: [cli.number]}
    run: {function: cli.double, site: local, args: ["${data.n}"]}
"""
BAD = """version: 1
rules:
  - name: one
    upon: {type: [x]}
    run: {functio: f}
  - name: two
    upon: {type: 3}
    run: {function: f}
"""


def test_check_needs_no_system_and_names_every_problem(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    checked = called("rules", "check", "bad.yaml", cwd=tmp_path)
    assert checked.returncode == 2
    lines = checked.stdout.splitlines()
    assert all(re.match(r"bad\.yaml:\d+:\d+: rules\[[01]\]", line) for line in lines), lines
    assert "did you mean 'function'" in checked.stdout
    assert {line.split(":")[1] for line in lines} == {"5", "7"}
    found = json.loads(called("rules", "check", "bad.yaml", "--json", cwd=tmp_path).stdout)
    assert len(found) == len(lines)
    assert found[0].keys() == {"file", "line", "column", "field", "problem"}


def test_check_says_that_all_is_fine(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    checked = called("rules", "check", "good.yaml", cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "1 rule is fine\n")
    assert json.loads(called("rules", "check", "good.yaml", "--json", cwd=tmp_path).stdout) == []


def test_check_of_what_is_no_file(tmp_path: Path) -> None:
    checked = called("rules", "check", "none.yaml", cwd=tmp_path)
    assert checked.returncode == 2
    assert checked.stderr == "error none.yaml: No such file or directory\n"


def test_a_bad_file_is_not_applied(system: System, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    applied = system.run("rules", "apply", str(tmp_path / "bad.yaml"), check=False)
    assert applied.returncode == 2
    assert f"{tmp_path}/bad.yaml:5:" in applied.stderr
    assert not [r for r in json.loads(system.run("rules", "list", "--json").stdout) if r["name"] in ("one", "two")]


def test_a_rule_from_apply_to_delete(system: System, tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text("def double(n):\n    return 2 * n\n")
    (tmp_path / "good.yaml").write_text(GOOD)
    system.run("functions", "register", f"{tmp_path}/functions.py:double", "--name", "cli.double")
    said = system.run("rules", "apply", str(tmp_path / "good.yaml")).stdout
    assert re.fullmatch(r"applied cli-doubles@\d+\n", said)
    assert system.run("rules", "apply", str(tmp_path / "good.yaml")).stdout == said, "unchanged, no new version"
    listed = [r for r in json.loads(system.run("rules", "list", "--json").stdout) if r["name"] == "cli-doubles"]
    assert listed[0]["spec"]["run"]["function"] == "cli.double"
    assert "cli.number" in system.run("rules", "list").stdout

    def fired() -> list[dict[str, object]]:
        system.run("events", "publish", "--type", "cli.number", "--data", '{"n": 21}')
        found = json.loads(system.run("tasks", "list", "--json", "--rule", "cli-doubles").stdout)
        return [task for task in found if task["status"] == "succeeded"]

    task = wait_for(fired, "the rule has fired")[0]
    shown = system.run("tasks", "show", str(task["id"])).stdout
    assert "42" in shown
    assert re.search(r"rule +cli-doubles@\d+", shown)
    assert re.search(r"event +cli\.number", shown)
    assert system.run("rules", "delete", "cli-doubles").stdout == "deleted cli-doubles\n"
    again = system.run("rules", "delete", "cli-doubles", check=False)
    assert again.returncode == 1
    assert "cli-doubles" in again.stderr


def test_the_life_of_a_rule(system: System, tmp_path: Path) -> None:
    file = tmp_path / "life.yaml"
    text = GOOD.replace("cli-doubles", "cli-life").replace("cli.number", "cli.life").replace("cli.double", "cli.none")
    file.write_text(text)

    def said(*words: str) -> str:
        return system.run("rules", *words).stdout

    checked = system.run("rules", "check", str(file))
    assert "warning: rule cli-life: run.function: function 'cli.none' is not registered" in checked.stderr
    assert said("apply", str(file)) == "applied cli-life@1\n"
    file.write_text(text.replace("data.n", "data.m") + "  - {name: cli-other, upon: {type: [x]}, run: {function: f}}\n")
    assert said("apply", str(file)) == "applied cli-life@2\napplied cli-other@1\n"
    assert "-  - ${data.n}\n+  - ${data.m}\n" in said("diff", "cli-life")
    assert "${data.n}" in said("show", "cli-life@1")
    assert said("disable", "cli-life") == "disabled cli-life@2\n"
    assert "disabled by hand; `upon rules enable cli-life`" in said("apply", str(file))
    assert said("enable", "cli-life") == "enabled cli-life@2\n"
    assert said("rollback", "cli-life") == "rolled back cli-life@1\n"
    assert said("apply", "--again", str(file)).startswith("applied cli-life@2\n")
    file.write_text(text)
    assert said("prune", str(file)) == "deleted cli-other\n"
    file.write_text(text.replace("cli-life", "cli-new"))
    assert said("apply", "--prune", str(file)) == "applied cli-new@1\ndeleted cli-life\n"
    found = json.loads(said("history", "cli-life", "--json"))
    assert [one["action"] for one in found][:3] == ["apply", "apply", "rollback"]
    assert "deleted" in said("history", "cli-life")
    assert said("delete", "cli-new") == "deleted cli-new\n"
