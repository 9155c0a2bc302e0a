"""Status from facts: what the supervisor wrote last counts only as far as it can be seen now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from upon.embedded.health import Facts, judge
from upon.embedded.parts import KAFKA, PARTS, ROOM
from upon.embedded.state import PartState, SystemState

HOME = Path("/data/upon")
PIDS = {name: 100 + number for number, name in enumerate((KAFKA, *PARTS))}


def _state(**changed: PartState) -> SystemState:
    parts = {name: changed.get(name, PartState(state="up", pids=[pid])) for name, pid in PIDS.items()}
    return SystemState(pid=7, started=1.0, kafka="k:1", service="http://s", site="local", ready=True, parts=parts)


def _facts(gone: str = "", **changed: Any) -> Facts:
    running = {name: (pid,) for name, pid in PIDS.items() if name != gone}
    return Facts(**{"running": running, **changed})


def test_all_is_up_when_all_is_there_and_answers() -> None:
    view = judge(HOME, _state(), _facts())
    assert view["state"] == "up"
    assert view["troubles"] == []
    assert {part["state"] for part in view["parts"].values()} == {"up"}


@pytest.mark.parametrize("gone", PIDS)
def test_a_process_that_is_gone_is_down_whatever_was_written(gone: str) -> None:
    view = judge(HOME, _state(), _facts(gone))
    assert view["state"] == "degraded"
    assert view["parts"][gone]["state"] == "down"
    assert view["parts"][gone]["pids"] == []
    assert view["troubles"] == [f"{gone} is down: its process is gone"]


@pytest.mark.parametrize(
    ("name", "facts"), [(KAFKA, replace(_facts(), kafka=False)), ("service", replace(_facts(), service=False))]
)
def test_a_server_that_does_not_answer_is_down(name: str, facts: Facts) -> None:
    view = judge(HOME, _state(), facts)
    assert view["parts"][name]["state"] == "down"
    assert "does not answer" in view["troubles"][0]


def test_a_full_disk_is_named_first() -> None:
    view = judge(HOME, _state(), _facts(KAFKA, free=ROOM - 1))
    assert view["state"] == "degraded"
    assert view["troubles"][0].startswith("the disk of /data/upon is full (63 MB free)")


def test_a_process_that_the_state_does_not_know_yet_is_starting() -> None:
    view = judge(HOME, _state(streams=PartState(state="up", pids=[999])), _facts())
    assert view["parts"]["streams"]["state"] == view["state"] == "starting"
    assert view["parts"]["streams"]["pids"] == [PIDS["streams"]]


def test_why_a_part_is_down_is_said() -> None:
    broken = PartState(state="down", reason="topic upon.registry, offset 7: damaged")
    view = judge(HOME, _state(service=broken), _facts("service"))
    assert view["troubles"] == ["service is down: topic upon.registry, offset 7: damaged"]


@pytest.mark.parametrize("gone", ["", "sources"])
def test_sources_that_do_not_start_do_not_look_well(gone: str) -> None:
    view = judge(HOME, _state(sources=PartState(state="failed", reason="no such file")), _facts(gone))
    assert view["state"] == "degraded"
    assert view["troubles"] == ["sources is failed: no such file"]


def test_a_kafka_elsewhere_is_asked_too() -> None:
    state = _state()
    del state.parts[KAFKA]
    assert judge(HOME, state, _facts())["parts"][KAFKA]["state"] == "external"
    view = judge(HOME, state, _facts(kafka=False))
    assert (view["state"], view["troubles"]) == ("degraded", ["kafka is down: nobody answers at k:1"])


def test_what_a_killed_supervisor_left_is_named() -> None:
    view = judge(HOME, None, Facts(leftover={"dispatcher": (8,)}))
    assert view["state"] == "stopped"
    assert "dispatcher (pid 8)" in view["troubles"][0]
    assert "upon down" in view["troubles"][0]
    assert judge(HOME, None, Facts())["troubles"] == []
