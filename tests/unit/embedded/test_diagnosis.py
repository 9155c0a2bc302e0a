"""Why a broker is gone, told from what it wrote."""

from __future__ import annotations

import pytest

from upon.embedded.broker.diagnosis import CAUSES, Evidence, cause, errors, explain, this_start

START = "2026-11-21T11:28:58.101 INFO kafka.utils.Log4jControllerRegistration$: Registered MBean\n"
OLD_ERROR = "2026-11-20T10:00:00.000 SEVERE kafka.Kafka$: No space left on device\n"


def severe(text: str) -> str:
    return f"{START}2026-11-21T11:28:58.200 SEVERE kafka.server.X: [X id=1] it failed\n{text}\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("java.io.IOException: No space left on device", "no room"),
        ("org.apache.kafka.common.KafkaException: Socket server failed to bind to 127.0.0.1:9: in use.", "port taken"),
        ("\tat java.net.BindException: Address already in use", "port taken"),
        ("KafkaException: Failed to acquire lock on file .lock in /d. A Kafka instance is using it", "runs already"),
        ("java.lang.NoClassDefFoundError: scala/Option", "jar"),
        ("java.lang.OutOfMemoryError: Java heap space", "memory"),
        ("java.io.IOException: Too many open files", "files"),
        ("java.nio.file.AccessDeniedException: /d/meta.properties", "not ours"),
        ("RuntimeException: Stored node id 7 doesn't match node.id 1 in meta.properties", "damaged"),
        ("java.lang.IllegalStateException: whatever", "unknown"),
    ],
)
def test_causes_in_the_log(text: str, name: str) -> None:
    assert cause(Evidence(log=severe(text))) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Error: Could not find or load main class kafka.Kafka", "jar"),
        ("Error occurred during initialization of VM\nCould not reserve enough space for object heap", "memory"),
        ("Unrecognized VM option 'UseX'\nError: Could not create the Java Virtual Machine.", "java"),
        ("# A fatal error has been detected by the Java Runtime Environment:\n#  SIGSEGV", "crash"),
        ("", "unknown"),
    ],
)
def test_causes_in_the_output(text: str, name: str) -> None:
    assert cause(Evidence(log="", output=text)) == name


def test_a_full_disk_cannot_be_logged_to() -> None:
    assert cause(Evidence(log=START, free=4096)) == "no room"


def test_only_the_last_start_counts() -> None:
    assert this_start(OLD_ERROR + START + "x\n") == START + "x\n"
    assert cause(Evidence(log=OLD_ERROR + START)) == "unknown"


def test_what_is_no_error_is_no_cause() -> None:
    log = START + "2026-11-21T11:28:58.2 INFO a.B: No meta.properties yet; BufferUnderflowException is expected\n"
    assert errors(log) == ""
    assert cause(Evidence(log=log)) == "unknown"


def test_every_cause_says_what_to_do() -> None:
    for name, _, _ in CAUSES:
        assert name
    for text in ("No space left on device", "Address already in use", "OutOfMemoryError", "anything"):
        message = explain(Evidence(log=severe(text), folder="/h/kafka", data="/h/kafka/data", log_file="/h/l", port=99))
        assert "docker compose" in message
        assert "--kafka" in message
        assert "/h/l" in message
        assert "{" not in message


def test_the_port_and_who_has_it_are_named() -> None:
    message = explain(Evidence(log=severe("Address already in use"), port=12345, port_owner="nginx, pid 7"))
    assert "12345" in message
    assert "nginx, pid 7" in message


def test_a_signal_is_named() -> None:
    assert "signal 9" in explain(Evidence(log=START, exit_code=-9))
    assert cause(Evidence(log=START, exit_code=-11)) == "crash"


def test_unknown_errors_are_quoted() -> None:
    assert "[X id=1] it failed" in explain(Evidence(log=severe("java.lang.IllegalStateException: whatever")))
