"""Logs that end within a batch, made by hand; the real ones are in tests/failures/test_kafka_damaged.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from upon.embedded.broker.segments import CLEAN, HEADER, PREFIX, cut_off, have_checked


def batch(offset: int, size: int = 100) -> bytes:
    return HEADER.pack(offset, size - PREFIX, 0, 2).ljust(size, b"x")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The only segment of t-0: ten batches of 100 bytes, the index naming the ninth, and Kafka stopped well."""
    (tmp_path / CLEAN).write_text("{}")
    (tmp_path / "t-0").mkdir()
    log = tmp_path / "t-0" / "00000000000000000000.log"
    log.write_bytes(b"".join(batch(n) for n in range(10)))
    log.with_suffix(".index").write_bytes(b"".join(n.to_bytes(4, "big") + (n * 100).to_bytes(4, "big") for n in (4, 8)))
    return log


def test_whole_logs_are_not_named(log: Path, tmp_path: Path) -> None:
    (tmp_path / "empty-3").mkdir()
    (tmp_path / "empty-3" / "00000000000000000007.log").write_bytes(b"")
    assert cut_off(tmp_path) == []


@pytest.mark.parametrize("size", [999, 905, 850, 507, 3])
def test_a_log_that_ends_within_a_batch_is_named(log: Path, tmp_path: Path, size: int) -> None:
    with log.open("r+b") as file:
        file.truncate(size)
    assert cut_off(tmp_path) == ["t-0"]
    have_checked(tmp_path)
    assert cut_off(tmp_path) == [], "what Kafka looks at by itself is not named"


def test_only_the_newest_segment_counts(log: Path, tmp_path: Path) -> None:
    log.write_bytes(log.read_bytes()[:-1])
    log.with_name("00000000000000000010.log").write_bytes(batch(10))
    assert cut_off(tmp_path) == []


def test_bytes_that_are_no_batch_are_left_to_who_reads_them(log: Path, tmp_path: Path) -> None:
    log.write_bytes(log.read_bytes()[:900] + bytes(100))
    assert cut_off(tmp_path) == []
