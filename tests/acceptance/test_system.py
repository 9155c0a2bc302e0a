"""`upon up`, `down`, `status`: a whole system as its operator meets it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.systems import System, running, wait_for
from upon import Executor
from upon.embedded.broker.folder import BrokerFolder
from upon.embedded.ports import HOST, free_port

PARTS = ["kafka", "service", "streams", "dispatcher", "manager", "workers", "sources"]


def _upon(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "upon", *words],
        capture_output=True, text=True, check=False, timeout=90, env=os.environ | environment,
    )  # fmt: skip


def test_status_names_addresses_and_every_part_with_its_processes(system: System) -> None:
    status = system.wait_up()
    assert status["kafka"].startswith("127.0.0.1:")
    assert status["service"].startswith("http://127.0.0.1:")
    assert list(status["parts"]) == PARTS

    def gone() -> list[str]:
        parts = system.status()["parts"].items()
        return [name for name, part in parts if not (part["pids"] and all(map(psutil.pid_exists, part["pids"])))]

    wait_for(lambda: not gone(), "every part has processes, and they live (other tests end some)")

    def workers() -> int:
        said = system.status()["parts"]["workers"]
        return int(said["busy"] + said["free"])

    wait_for(lambda: workers() == os.cpu_count(), "all workers are there (other tests end some)")
    shown = system.run("status").stdout
    assert all(name in shown for name in PARTS)


def test_a_second_start_in_the_same_home_is_refused(system: System) -> None:
    for options in (["--detach"], []):
        again = system.run("up", *options, check=False)
        assert again.returncode == 1
        assert "runs in" in again.stderr
        assert "upon down" in again.stderr
    assert system.status()["state"] == "up"


def test_every_server_listens_on_loopback_only(system: System) -> None:
    status = system.wait_up()
    for name, part in status["parts"].items():
        for pid in part["pids"]:
            for connection in psutil.Process(pid).net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), name


def test_ctrl_c_stops_everything_in_time_and_the_data_stay(tmp_path: Path, kafka: str) -> None:
    """On a Kafka that somebody else runs, in the foreground, at an address and with a token of one's own."""
    home, sources = tmp_path / "home", tmp_path / "sources.yaml"
    sources.write_text(f"version: 1\nsources:\n  - {{name: incoming, kind: filesystem, path: {tmp_path}}}\n")
    command = [sys.executable, "-m", "upon", "up", "--home", str(home), "--kafka", kafka, "--workers", "1"]
    given = {"UPON_PREFIX": f"test-{secrets.token_hex(4)}", "UPON_LISTEN": f"127.0.0.1:{free_port()}"}
    given |= {"UPON_TOKEN": "a-token-of-mine"}
    system = System(home, tmp_path)
    for values, options in (([1024], ["--sources", str(sources)]), ([1024, 2048], [])):
        process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=os.environ | given)
        try:
            wait_for(lambda: system.status()["state"] == "up", "the system up")
            status = system.status()
            assert status["parts"]["kafka"]["state"] == "external"
            assert status["parts"]["sources"]["info"]["sources"] == ["incoming"], "remembered from the first start"
            assert status["service"] == f"http://{given['UPON_LISTEN']}"
            assert json.loads((home / "profile.json").read_text())["token"] == given["UPON_TOKEN"]
            with Executor(home=home) as executor:
                assert executor.submit(pow, 2, 9 + len(values)).result(timeout=60) == values[-1]
            listed = _upon("tasks", "list", "--json", "--home", str(home)).stdout
            assert listed.count('"succeeded"') == len(values)
            children = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        assert "ready after" in said
        assert f"from {sources} (remembered" in said
        if len(values) == 1:  # what is applied counts at the next start, whatever the first was told
            assert _upon("sources", "apply", str(sources), "--home", str(home)).returncode == 0
        assert [child for child in children if child.is_running() and child.status() != "zombie"] == []


def test_of_two_starts_at_once_one_runs(tmp_path: Path, kafka: str) -> None:
    command = [sys.executable, "-m", "upon", "up", "--detach", "--home", str(tmp_path / "home"), "--workers", "1"]
    environment = os.environ | {"UPON_PREFIX": f"test-{secrets.token_hex(4)}", "UPON_KAFKA": kafka}
    starts = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    system = System(tmp_path / "home", tmp_path)
    try:
        said = [start.communicate(timeout=150) for start in starts]
        assert sorted(start.returncode for start in starts) == [0, 1], said
        refused = next(said for start, said in zip(starts, said, strict=True) if start.returncode == 1)
        assert "runs in" in refused[1]
        assert "upon down" in refused[1]
        assert len(system.wait_up()["parts"]["dispatcher"]["pids"]) == 1
    finally:
        system.run("down")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        address = "{}:{}".format(*server.getsockname())
        failed = _upon("up", "--home", str(tmp_path / "home"), "--kafka", "127.0.0.1:1", UPON_LISTEN=address)
    assert failed.returncode == 2
    assert f"cannot listen at {address}: the port is taken by" in failed.stderr


def test_a_part_that_dies_is_restarted_and_one_line_says_so(tmp_path: Path, kafka: str) -> None:
    system = System(tmp_path / "home", tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "upon", "up", "--home", str(system.home), "--kafka", kafka, "--workers", "1"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"UPON_PREFIX": f"test-{secrets.token_hex(4)}"},
    )  # fmt: skip
    try:
        wait_for(lambda: system.status()["state"] == "up", "the system up")
        killed = system.kill("manager")
        wait_for(lambda: system.status()["parts"]["manager"]["restarts"] == 1, "the restart")
        wait_for(lambda: system.status()["state"] == "up", "the system up again")
        assert killed not in system.pids("manager")
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    lines = [line for line in said.splitlines() if line.startswith("manager")]
    assert [("died (signal SIGKILL); restarting" in line, "up again after" in line) for line in lines] == [
        (False, False), (True, False), (False, True),
    ]  # fmt: skip


def test_two_systems_beside_each_other(system: System, tmp_path: Path) -> None:
    """The other one loses the port that it has chosen for Kafka to a program that is quicker, and takes another."""
    kafka = BrokerFolder(tmp_path / "home" / "kafka")

    def rob() -> socket.socket:
        return socket.create_server((HOST, wait_for(lambda: kafka.identity().port, "Kafka's port is chosen")))

    with ThreadPoolExecutor(1) as pool:
        robbing = pool.submit(rob)
        with running(tmp_path, "--workers", "1") as other, robbing.result() as thief:
            assert kafka.identity().port != thief.getsockname()[1]
            assert "starting again at others" in (other.home / "logs" / "up.log").read_text()
            assert other.status()["service"] != system.status()["service"]
            with Executor(home=other.home) as a, Executor(home=system.home) as b:
                assert a.submit(pow, 2, 3).result(timeout=60) == 8
                assert b.submit(pow, 2, 4).result(timeout=60) == 16


@pytest.mark.parametrize(("address", "said"), [("127.0.0.1:1", "no Kafka answers"), ("nonsense", "HOST:PORT")])
def test_a_broker_that_does_not_answer_is_named(tmp_path: Path, address: str, said: str) -> None:
    failed = _upon("up", "--home", str(tmp_path / "home"), "--kafka", address)
    assert failed.returncode in (1, 2)
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


def test_without_a_system_each_command_says_what_to_do(tmp_path: Path) -> None:
    status = _upon("status", UPON_HOME=str(tmp_path))
    assert status.returncode == 1
    assert "upon up" in status.stdout
    listing = _upon("tasks", "list", UPON_HOME=str(tmp_path))
    assert listing.returncode == 1
    assert "upon up" in listing.stderr
    assert _upon("down", UPON_HOME=str(tmp_path)).returncode == 0


def test_the_doctor_finds_a_well_machine_well(system: System) -> None:
    found = system.run("doctor")
    assert "Kafka" in found.stdout
    assert "Java" in found.stdout
