"""The broker's settings, as data."""

from __future__ import annotations

from pathlib import Path

from upon.embedded.broker import properties
from upon.messages import MAX_RECORD

SETTINGS = properties.server_properties(Path("/d"), 11_000, 11_001)


def test_every_listener_is_local() -> None:
    for name in ("listeners", "advertised.listeners"):
        for listener in SETTINGS[name].split(","):
            assert listener.split("://")[1].startswith("127.0.0.1:")
    assert SETTINGS["controller.quorum.voters"] == "1@127.0.0.1:11001"


def test_nothing_is_replicated() -> None:
    counts = {name: value for name, value in SETTINGS.items() if "replication.factor" in name or name.endswith("isr")}
    assert len(counts) >= 6
    assert set(counts.values()) | {SETTINGS["min.insync.replicas"]} == {"1"}


def test_the_largest_record_passes() -> None:
    assert int(SETTINGS["message.max.bytes"]) == MAX_RECORD
    assert int(SETTINGS["replica.fetch.max.bytes"]) >= MAX_RECORD
    assert int(SETTINGS["socket.request.max.bytes"]) > MAX_RECORD


def test_positions_outlive_records() -> None:
    assert int(SETTINGS["offsets.retention.minutes"]) > int(SETTINGS["log.retention.minutes"]) == 7 * 24 * 60


def test_a_segment_fits_its_index() -> None:
    entry, every = 12, 4096  # bytes of a time index entry; bytes of records for each
    assert int(SETTINGS["log.segment.bytes"]) // every * entry <= int(SETTINGS["log.index.size.max.bytes"])


def test_after_kill_the_dead_session_is_short() -> None:
    assert int(SETTINGS["broker.session.timeout.ms"]) <= 2000
    assert int(SETTINGS["broker.heartbeat.interval.ms"]) * 3 <= int(SETTINGS["broker.session.timeout.ms"])


def test_the_log_is_bounded() -> None:
    settings = properties.logging_properties(Path("/h/50%/kafka.log"))
    handler = "java.util.logging.FileHandler"
    assert settings[f"{handler}.pattern"] == "/h/50%%/kafka.%g.log"
    assert int(settings[f"{handler}.limit"]) * int(settings[f"{handler}.count"]) <= 10 * 1024 * 1024


def test_rendered_as_java_reads_it() -> None:
    text = properties.rendered({"a": "C:\\x", "b": "/Übung/𝄞"})
    assert text == "a=C:\\\\x\nb=/\\u00dcbung/\\ud834\\udd1e\n"
