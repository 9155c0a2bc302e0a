"""Where the parts meet: what the user wants, else where they were, else anywhere."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from upon.embedded.addresses import chosen, port, reachable
from upon.embedded.ports import free_port
from upon.errors import ConfigError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        yield server.getsockname()[1]


def test_the_last_ports_are_kept_while_they_are_free(taken: int) -> None:
    first = chosen(kafka="k:1")
    again = chosen(kafka="k:1", last_service=first.service, last_dispatcher=first.dispatcher)
    assert again == first
    assert first.listen.startswith("127.0.0.1:")
    other = chosen(kafka="k:1", last_service=f"http://127.0.0.1:{taken}", last_dispatcher=first.dispatcher)
    assert port(other.listen) not in (0, taken)
    assert other.dispatcher == first.dispatcher


def test_a_port_that_seemed_free_and_was_not_is_not_chosen_again() -> None:
    service, dispatcher = free_port(), free_port()
    lasting = {"last_service": f"http://127.0.0.1:{service}", "last_dispatcher": f"tcp://127.0.0.1:{dispatcher}"}
    again = chosen(kafka="k:1", avoid={service}, **lasting)
    assert again.listen != f"127.0.0.1:{service}"
    assert again.dispatcher == lasting["last_dispatcher"]


def test_what_the_user_wants_is_done_and_clients_here_get_an_address_to_connect_to() -> None:
    wanted, other = free_port(), free_port()
    found = chosen(kafka="k:1", listen=f"0.0.0.0:{wanted}", dispatcher=f"tcp://0.0.0.0:{other}")
    assert found.listen == f"0.0.0.0:{wanted}"
    assert found.service == f"http://127.0.0.1:{wanted}"
    assert found.environment("dispatcher")["UPON_DISPATCHER"] == f"tcp://0.0.0.0:{other}"
    assert found.environment("manager")["UPON_DISPATCHER"] == f"tcp://127.0.0.1:{other}"
    assert found.environment("service")["UPON_LISTEN"] == f"0.0.0.0:{wanted}"


@pytest.mark.parametrize(
    ("address", "seen"),
    [("10.0.0.7:1", "10.0.0.7:1"), ("[::]:8", "[::1]:8"), ("*:8", "127.0.0.1:8"), ("beam.line:8", "beam.line:8")],
)
def test_an_address_for_everybody_is_reached_at_home(address: str, seen: str) -> None:
    assert reachable(address) == seen


def test_a_port_that_is_taken_is_named_with_its_owner(taken: int) -> None:
    with pytest.raises(ConfigError, match=rf"UPON_LISTEN.*127.0.0.1:{taken}.*taken by .*pid \d+"):
        chosen(kafka="k:1", listen=f"127.0.0.1:{taken}")
    with pytest.raises(ConfigError, match=rf"UPON_DISPATCHER.*{taken}"):
        chosen(kafka="k:1", dispatcher=f"tcp://127.0.0.1:{taken}")


@pytest.mark.parametrize("wrong", ["", "8700", "127.0.0.1", "127.0.0.1:99999", "a:b"])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="UPON_LISTEN"):
        chosen(kafka="k:1", listen=wrong)
    with pytest.raises(ConfigError, match="UPON_DISPATCHER"):
        chosen(kafka="k:1", dispatcher=wrong or "x")
