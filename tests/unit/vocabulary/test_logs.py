"""Logs: one JSON object a line, and a library that repeats itself is heard once."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging
from upon.logs import configure, get_logger
configure("dispatcher", "info")
get_logger("upon.test").info("ready", action="ready", id="7")
get_logger("upon.test").debug("not heard")
library = logging.getLogger("aiokafka.conn")
library.info("not heard")
for attempt in range(100):
    library.error("Unable to connect to %s", attempt)
token = "secret"
try:
    1 / 0
except ZeroDivisionError:
    get_logger("upon.test").exception("it failed", action="try")
"""


def test_what_is_logged() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["ready", "Unable to connect to 0", "it failed"]
    assert lines[0].items() >= {"part": "dispatcher", "action": "ready", "id": "7", "level": "info"}.items()
    assert lines[1]["logger"] == "aiokafka.conn"
    assert "ZeroDivisionError" in json.dumps(lines[2])
    assert "secret" not in ran.stderr


def test_who_logs_to_nobody_goes_on() -> None:
    script = SCRIPT + "\nimport sys; sys.stdout.write('to the end')"
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as nobody:
        nobody.wait()
        ran = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=nobody.stdin, check=True)
    assert ran.stdout == b"to the end"
