"""Events and dead letters on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.systems import System, wait_for


@contextmanager
def started(system: System, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until it is stopped."""
    process = subprocess.Popen(
        [sys.executable, "-m", "upon", *words, "--home", str(system.home)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def publish_until(system: System, process: subprocess.Popen[str], *words: str) -> str:
    """Publish the event again and again until the command prints a line; return that line."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)

    def line() -> str:
        system.run("events", "publish", *words)
        assert process.stdout is not None
        return process.stdout.readline()

    return wait_for(line, "a line of the command")


def test_tail_prints_a_line_for_each_event_and_ends_well(system: System) -> None:
    with started(system, "events", "tail", "--type", "cli.tail*") as tail:
        line = publish_until(system, tail, "--type", "cli.tailed", "--subject", "S-17", "--data", '{"mass": 3}')
        assert "cli.tailed S-17" in line
        assert '{"mass": 3}' in line
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 0


def test_tail_as_json_filters_and_counts(system: System) -> None:
    with started(system, "events", "tail", "--json", "--type", "cli.counted", "--count", "1") as tail:
        system.run("events", "publish", "--type", "cli.other")
        line = publish_until(system, tail, "--type", "cli.counted", "--data", "plain text", "--id", "E-1")
        event = json.loads(line)
        assert (event["type"], event["data"], event["id"], event["source"]) == (
            "cli.counted", "plain text", "E-1", "/upon/cli"
        )  # fmt: skip
        assert tail.wait(30) == 0


def test_past_events_are_listed_newest_last(system: System) -> None:
    for n in range(3):
        system.run("events", "publish", "--type", f"cli.past.{n}", "--subject", "S-1", "--data", f'{{"n": {n}}}')
    listed = json.loads(system.run("events", "list", "--since", "1h", "--type", "cli.past.*", "--json").stdout)
    assert [one["event"]["data"]["n"] for one in listed] == [0, 1, 2]
    shown = system.run("events", "list", "--type", "cli.past.1", "--type", "cli.past.2", "--limit", "1")
    assert "cli.past.2 S-1" in shown.stdout
    assert "cli.past.1" not in shown.stdout
    assert "there may be older ones: --until 20" in shown.stderr
    nothing = system.run("events", "list", "--type", "cli.past.none")
    assert (nothing.stdout, nothing.stderr) == ("", "no events\n")
    wrong = system.run("events", "list", "--since", "noon", check=False)
    assert (wrong.returncode, "--since: 'noon' is no moment in the past" in wrong.stderr) == (2, True)


def test_publish_prints_the_event(system: System) -> None:
    event = json.loads(system.run("events", "publish", "--type", "cli.p", "--data", "[1]", "--json").stdout)
    assert (event["type"], event["data"], event["specversion"]) == ("cli.p", [1], "1.0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--type", "x", "--data", "{mass: 3}"), "--data: not JSON"),
        (("--type", ""), "type: must be a non-empty string"),
        ((), "Missing option '--type'"),
    ],
)
def test_a_wrong_event_is_refused(system: System, words: tuple[str, ...], said: str) -> None:
    done = system.run("events", "publish", *words, check=False)
    assert done.returncode == 2
    assert said in done.stderr


def test_watch_prints_each_file_that_is_ready(system: System, tmp_path: Path) -> None:
    (tmp_path / "there.dat").write_bytes(b"1234")
    with started(system, "watch", str(tmp_path), "--json", "--pattern", "*.dat") as watch:
        assert watch.stdout is not None
        event = json.loads(watch.stdout.readline())
        assert (event["type"], event["subject"]) == ("upon.file.ready", f"{tmp_path}/there.dat")
        assert event["data"]["size"] == 4
        (tmp_path / "ignored.txt").write_text("x")
        (tmp_path / "new.part").write_bytes(b"12")
        (tmp_path / "new.part").rename(tmp_path / "new.dat")
        assert json.loads(watch.stdout.readline())["subject"] == f"{tmp_path}/new.dat"
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 0
        assert watch.stdout.read() == ""


def test_watch_of_what_is_no_folder(system: System, tmp_path: Path) -> None:
    done = system.run("watch", str(tmp_path / "none"), check=False)
    assert done.returncode == 2
    assert done.stderr == f"error {tmp_path}/none: no such folder; `upon watch` needs one that is there\n"


def test_what_is_no_event_is_a_dead_letter(system: System) -> None:
    from kafka import KafkaProducer

    profile = json.loads((system.home / "profile.json").read_text())
    producer = KafkaProducer(bootstrap_servers=profile["kafka"])
    producer.send(f"{profile['prefix']}.events", b"this is no event").get(30)
    producer.close()

    def letters() -> list[dict[str, object]]:
        found = json.loads(system.run("deadletters", "list", "--json").stdout)
        return [one for one in found if one["size"] == len("this is no event")]

    letter = wait_for(letters, "the dead letter")[0]
    assert "EventError" in str(letter["reason"])
    assert str(letter["id"])[:8] in system.run("deadletters", "list").stdout
    shown = system.run("deadletters", "show", str(letter["id"])).stdout
    assert "this is no event" in shown
    assert "streams" in shown
    missing = system.run("deadletters", "show", "nothing", check=False)
    assert missing.returncode == 1
    assert "no dead letter has the id 'nothing'" in missing.stderr
