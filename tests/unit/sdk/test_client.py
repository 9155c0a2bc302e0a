from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.systems import wait_for
from tests.unit.sdk.small_service import SmallService
from upon import Client
from upon.errors import ServiceUnavailable
from upon.sdk import client as client_module
from upon.sdk.rest import path


def test_a_request_outlives_a_restart_of_the_service(home: Path, service: SmallService) -> None:
    with Client(home=home) as client:
        assert client.sites() == []
        service.stop()
        later = threading.Timer(0.3, service.start)
        later.start()
        assert client.sites() == []
        later.join()


def test_a_service_that_is_gone_is_said(home: Path, service: SmallService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", 0.2)
    service.stop()
    with pytest.raises(ServiceUnavailable, match=r"Connection refused.*upon up"):
        Client(home=home).sites()


def test_it_goes_on_after_close_and_in_a_forked_child(home: Path) -> None:
    client = Client(home=home)
    client.sites()
    client.close()
    assert client.sites() == []
    child = os.fork()
    if child == 0:
        os._exit(0 if client.sites() == [] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert client.sites() == []


def test_a_watch_that_is_closed_ends(home: Path, service: SmallService) -> None:
    changes = Client(home=home).watch(tasks=True)
    assert changes.next(0.01) is None
    closing = threading.Timer(0.1, changes.close)
    closing.start()
    with pytest.raises(ServiceUnavailable, match="closed"):
        next(changes)
    closing.join()
    wait_for(lambda: not service.connected, "the connection is closed", 30)


def test_paths_are_quoted() -> None:
    assert path("functions", "a/b@1") == "/v1/functions/a%2Fb@1"
    assert path("tasks", status="failed", rule=None, limit=3) == "/v1/tasks?status=failed&limit=3"
