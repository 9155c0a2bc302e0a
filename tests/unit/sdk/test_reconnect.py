"""What the executor does when the service goes away, comes back, or is not there."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.systems import wait_for
from tests.unit.sdk.small_service import TOKEN, SmallService
from upon import Client, Executor, api
from upon.config import Home
from upon.errors import KafkaUnavailable, NotAuthenticated, ServiceUnavailable
from upon.sdk import connection, dialing


def test_a_lost_connection_loses_and_doubles_nothing(executor: Executor, service: SmallService) -> None:
    executor.submit(pow, 1, 1).result(30)
    sent: list[Future[int]] = []
    for n in range(2000):
        sent.append(executor.submit(pow, n, 1))
        if n % 400 == 200:
            service.drop()
    assert [f.result(60) for f in sent] == list(range(2000))
    assert set(service.executed.values()) == {1}


def test_a_restart_loses_nothing(executor: Executor, service: SmallService) -> None:
    before = [executor.submit(pow, n, 1) for n in range(100)]
    service.stop()
    during = [executor.submit(pow, n, 1) for n in range(100)]
    service.start()
    assert [f.result(60) for f in before + during] == [*range(100), *range(100)]
    assert set(service.executed.values()) == {1}


def test_what_was_not_acknowledged_is_sent_again(executor: Executor, service: SmallService) -> None:
    executor.submit(pow, 1, 1).result(30)
    service.acknowledge = service.push = False
    future = executor.submit(pow, 2, 2)
    wait_for(lambda: service.received[future.id], "the task has arrived", 30)
    service.acknowledge = service.push = True
    service.drop()
    assert future.result(30) == 4
    wait_for(lambda: service.received[future.id] == 2, "it was sent again", 30)
    assert service.executed[future.id] == 1


def test_results_that_came_in_between_are_asked_for(executor: Executor, service: SmallService) -> None:
    service.push = False
    future = executor.submit(pow, 2, 2)
    wait_for(lambda: future.id in service.results, "it has run", 30)
    service.push = True
    service.drop()
    assert future.result(30) == 4


def test_a_refusal_that_passes_is_tried_again(executor: Executor, service: SmallService) -> None:
    left = [3]

    def refuse(frame: api.FromClient) -> KafkaUnavailable | None:
        left[0] -= 1
        return KafkaUnavailable("restarting") if left[0] >= 0 else None

    service.refuse = refuse
    assert executor.submit(pow, 2, 5).result(30) == 32
    assert left[0] < 0


def test_a_new_address_in_the_profile_is_found(executor: Executor, service: SmallService, home: Path) -> None:
    executor.submit(pow, 1, 1).result(30)
    service.stop()
    service.port += 1
    service.start()
    Home(home).write_profile(service=service.address)
    assert executor.submit(pow, 2, 2).result(30) == 4


def test_a_service_that_stays_away_fails_the_futures(home: Path, service: SmallService) -> None:
    executor = Executor(home=home, patience=0.3)
    executor.submit(pow, 1, 1).result(30)
    service.run = False
    future = executor.submit(pow, 2, 2)
    wait_for(lambda: service.received[future.id], "the task has arrived", 30)
    service.stop()
    with pytest.raises(ServiceUnavailable, match=rf"{service.address}.*upon up"):
        future.result(30)
    with pytest.raises(ServiceUnavailable):
        executor.submit(pow, 2, 2)
    executor.shutdown()


def test_a_service_that_is_not_there(home: Path, service: SmallService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.stop()
    monkeypatch.setattr(dialing, "CONNECT", 0.3)
    with pytest.raises(ServiceUnavailable, match=rf"{service.address} \(Connect.*refused\): start it with `upon up`"):
        Executor(home=home)


def test_no_address_at_all(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match=r"profile.json is not there; start a system with `upon up`"):
        Executor(home=tmp_path)
    with pytest.raises(ServiceUnavailable, match="UPON_SERVICE"):
        Client(home=tmp_path).sites()


def test_a_wrong_token(home: Path) -> None:
    with pytest.raises(NotAuthenticated, match=r"did not accept the token.*profile.json"):
        Executor(home=home, token="wrong")
    with pytest.raises(NotAuthenticated, match=r"no such token.*profile.json"):
        Client(home=home, token="wrong").sites()
    assert Client(home=home, token=TOKEN).sites() == []


def test_submit_waits_while_much_is_not_acknowledged(
    executor: Executor, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.submit(len, b"").result(30)
    monkeypatch.setattr(connection, "MAX_BYTES", 1_000_000)
    service.acknowledge = False
    done = threading.Event()
    sent: list[Future[int]] = []

    def submit() -> None:
        for _ in range(30):
            sent.append(executor.submit(len, bytes(100_000)))
        done.set()

    thread = threading.Thread(target=submit)
    thread.start()
    wait_for(lambda: len(sent) >= 9, "as many as fit are taken, sent or not", 30)
    assert not done.wait(0.2)
    assert len(sent) <= 12
    assert len(service.received) <= 12
    service.acknowledge = True
    service.drop()
    thread.join(30)
    assert [f.result(30) for f in sent] == [100_000] * 30


SCRIPT = """
import sys
from upon import Executor
ex = Executor(home=sys.argv[1])
for n in range(1000):
    ex.submit(pow, n, 1)
"""


def test_a_script_that_does_not_wait_has_handed_all_over(home: Path, service: SmallService) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert len(service.executed) == 1000


def test_a_script_ends_although_the_service_is_gone(home: Path, service: SmallService) -> None:
    service.acknowledge = False
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0
    assert "left before the service had accepted all tasks" in ran.stderr
    assert "Traceback" not in ran.stderr
