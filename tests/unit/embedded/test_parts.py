"""What the supervisor decides: when to try again, when to give up, what to say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upon.embedded.parts import (
    FIRST_DELAY,
    GIVE_UP,
    LASTING,
    LONGEST_DELAY,
    ROOM,
    SAID_WHY,
    STEADY,
    TAKEN,
    Deaths,
    describe_exit,
    inherited,
    lacks_room,
    last_message,
)


@given(st.lists(st.none() | st.floats(0, 100)))
def test_the_pause_grows_and_is_bounded(lives: list[float | None]) -> None:
    deaths = Deaths()
    for ready_for in lives:
        before, deaths = deaths, deaths.died(ready_for)
        assert FIRST_DELAY <= deaths.delay <= LONGEST_DELAY
        healthy = ready_for is not None and ready_for >= STEADY
        assert deaths.in_a_row == (1 if healthy else before.in_a_row + 1)
        assert deaths.ever_ready == (before.ever_ready or ready_for is not None)


def test_a_part_that_never_was_ready_is_given_up() -> None:
    deaths = Deaths()
    for _ in range(GIVE_UP):
        assert deaths.after("service", 1) == "again"
        deaths = deaths.died(None)
    assert deaths.after("service", 1) == deaths.after("service", None) == "give up"


def test_a_part_that_said_why_is_given_up_at_once_but_the_system_runs_without_sources() -> None:
    deaths = Deaths().died(None)
    assert deaths.after("service", SAID_WHY) == "give up"
    assert deaths.after("service", LASTING) == "give up"
    assert deaths.after("kafka", TAKEN) == "give up", "the next start chooses another address"
    assert deaths.after("sources", SAID_WHY) == "later"


def test_a_part_that_was_ready_once_is_never_given_up() -> None:
    deaths = Deaths().died(1.0)
    for _ in range(20):
        deaths = deaths.died(None)
    assert deaths.after("service", SAID_WHY) == "again"
    assert deaths.after("service", LASTING) == "later", "what does not pass by itself is tried now and then"
    assert deaths.delay == LONGEST_DELAY


def test_only_kafka_waits_for_room() -> None:
    assert lacks_room("kafka", ROOM - 1).startswith("the disk of the home is full (63 MB free")
    assert lacks_room("kafka", ROOM) == lacks_room("service", 0) == ""


def test_an_exit_is_described_in_words() -> None:
    assert describe_exit(2) == "exit code 2"
    assert describe_exit(-9) == "signal SIGKILL"


def test_the_last_message_of_a_log_is_its_last_error() -> None:
    lines = [
        '{"level": "info", "event": "ready"}',
        '{"level": "error", "event": "no room"}',
        '{"level": "info", "event": "stopped"}',
    ]
    assert last_message(lines) == "no room"
    assert last_message(['{"level": "error", "event": "damaged", "action": "stop"}', *lines]) == "damaged"
    assert last_message(["Traceback", "  File x", "ValueError: 3"]) == "ValueError: 3"
    assert last_message([]) == ""


def test_a_secret_is_for_the_part_that_needs_it() -> None:
    given = {
        "PATH": "/bin",
        "UPON_TOKEN": "t",
        "UPON_DATABASE": "d",
        "UPON_GLOBUS_CLIENT_SECRET": "g",
        "NOTIFY_SOCKET": "n",
    }
    assert inherited("manager", given) == {"PATH": "/bin"}
    assert inherited("service", given).keys() == {"PATH", "UPON_TOKEN", "UPON_DATABASE"}
    assert inherited("sources", given).keys() == {"PATH", "UPON_GLOBUS_CLIENT_SECRET"}
