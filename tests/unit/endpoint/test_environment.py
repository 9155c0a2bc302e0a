"""Which of a manager's environment variables a function sees."""

from __future__ import annotations

from pathlib import Path

from upon.endpoint.environment import allowed, told, where
from upon.messages import MAX_PAYLOAD
from upon.store.payloads import Where

MANAGER = {
    "PATH": "/bin",
    "LC_ALL": "C",
    "PYTHONPATH": "/lib",
    "SLURM_JOB_ID": "7",
    "EPICS_CA_ADDR_LIST": "h",
    "UPON_HOME": "/home",
    "UPON_TOKEN": "secret",
    "UPON_DATABASE": "postgresql://u:secret@h/d",
    "UPON_GLOBUS_CLIENT_SECRET": "secret",
    "UPON_READY_FD": "7",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "BEAMLINE_NAME": "7-BM",
}


def test_the_usual_ones_pass_and_secrets_do_not() -> None:
    seen = allowed(MANAGER)
    assert list(seen) == ["PATH", "LC_ALL", "PYTHONPATH", "SLURM_JOB_ID", "EPICS_CA_ADDR_LIST", "UPON_HOME"]
    assert "secret" not in str(seen)


def test_a_user_adds_names_and_patterns() -> None:
    assert allowed(MANAGER, "BEAMLINE_*").keys() - allowed(MANAGER).keys() == {"BEAMLINE_NAME"}
    more = allowed(MANAGER, "AWS_SECRET_ACCESS_KEY, BEAMLINE_NAME")
    assert more.keys() - allowed(MANAGER).keys() == {"AWS_SECRET_ACCESS_KEY", "BEAMLINE_NAME"}


def test_a_pattern_lets_no_secret_of_ours_through_but_its_name_does() -> None:
    assert not any(name.startswith("UPON_") for name in allowed(MANAGER, "*").keys() - {"UPON_HOME"})
    assert "UPON_TOKEN" not in allowed(MANAGER, "UPON_*")
    assert allowed(MANAGER, "UPON_TOKEN")["UPON_TOKEN"] == "secret"


def test_a_worker_is_told_where_the_store_is() -> None:
    assert where(told(Path("/shared/store"), 1000)) == Where(Path("/shared/store"), 1000)
    assert where(MANAGER) == Where(None, MAX_PAYLOAD)
