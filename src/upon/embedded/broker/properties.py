"""The settings of the embedded broker, its log and its JVM, as data: no file is written and nothing is started here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from upon.embedded.ports import HOST
from upon.messages import MAX_RECORD

NODE = 1
DAY_MINUTES = 24 * 60
RETENTION_DAYS = 7
"""How long records stay in topics that are not compacted."""
HEAP_MB = 384
"""The most heap the broker takes. Idle it uses 60 MB."""


def server_properties(data: Path, port: int, controller_port: int) -> dict[str, str]:
    """Return the broker's settings: one node that is broker and controller, for clients of this machine alone.

    Args:
        data: folder of all records and metadata.
        port: where clients connect, on 127.0.0.1.
        controller_port: where the broker speaks to its own controller, on 127.0.0.1.
    """
    return {
        "process.roles": "broker,controller",
        "node.id": str(NODE),
        "controller.quorum.voters": f"{NODE}@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "log.dirs": str(data),
        **_one_node(),
        **_quick(),
        **_small(),
        **_records(),
    }


def _one_node() -> dict[str, str]:
    return {
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
    }


def _quick() -> dict[str, str]:
    return {
        # A group forms at once: there are no hundred members to wait for.
        "group.initial.rebalance.delay.ms": "0",
        # A commit is written at once and does not wait 5 ms for others.
        "group.coordinator.append.linger.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # After kill -9 the controller takes the broker back only when the dead one's session is over.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
    }


def _small() -> dict[str, str]:
    return {
        "num.network.threads": "2",
        "num.io.threads": "3",
        "background.threads": "2",
        "num.recovery.threads.per.data.dir": "2",
        "num.replica.fetchers": "1",
        "log.cleaner.threads": "1",
        "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
        "group.coordinator.threads": "1",
        "share.coordinator.threads": "1",
        # Each partition reserves this much twice, as a sparse file: 1 MB covers a segment of 256 MB.
        "log.index.size.max.bytes": str(1024 * 1024),
        "log.segment.bytes": str(256 * 1024 * 1024),
        "offsets.topic.segment.bytes": str(16 * 1024 * 1024),
        # How often the idle controller writes a record that says nothing; 500 ms wakes the disk all day.
        "metadata.max.idle.interval.ms": "5000",
    }


def _records() -> dict[str, str]:
    return {
        # Upon creates every topic with its settings; a misspelt name must not become a topic.
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        "message.max.bytes": str(MAX_RECORD),
        "replica.fetch.max.bytes": str(MAX_RECORD),
        "socket.request.max.bytes": str(8 * MAX_RECORD),
        "log.retention.minutes": str(RETENTION_DAYS * DAY_MINUTES),
        # Positions outlive the records: whoever comes back after a month goes on, and does not begin again.
        "offsets.retention.minutes": str(30 * DAY_MINUTES),
        # There is no replica to repair a loss, so the disk has everything after a second even if the power fails.
        "log.flush.interval.ms": "1000",
        "log.flush.scheduler.interval.ms": "1000",
    }


def logging_properties(file: Path) -> dict[str, str]:
    """Return java.util.logging's settings: one file of at most 5 MB and one older, readable line by line."""
    handler = "java.util.logging.FileHandler"
    return {
        "handlers": handler,
        ".level": "INFO",
        "org.apache.kafka.common.config.AbstractConfig.level": "WARNING",
        f"{handler}.pattern": str(file.with_suffix("")).replace("%", "%%") + ".%g" + file.suffix,
        f"{handler}.limit": str(5 * 1024 * 1024),
        f"{handler}.count": "2",
        f"{handler}.append": "true",
        f"{handler}.encoding": "UTF-8",
        f"{handler}.formatter": "java.util.logging.SimpleFormatter",
        "java.util.logging.SimpleFormatter.format": "%1$tFT%1$tT.%1$tL %4$s %3$s: %5$s%6$s%n",
    }


def jvm_flags(logging_config: Path, crash_folder: Path) -> list[str]:
    """Return the JVM's flags: quick to start, small, and gone at once when memory runs out."""
    return [
        "-Xms64m",
        f"-Xmx{HEAP_MB}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:ErrorFile={crash_folder}/jvm-crash-%p.log",
        # A thread keeps its largest I/O buffer for good unless told not to: 16 MB records times threads.
        "-Djdk.nio.maxCachedBufferSize=262144",
        "-Djava.awt.headless=true",
        # Levels and messages of the log are read again by `diagnosis`.
        "-Duser.language=en",
        f"-Djava.util.logging.config.file={logging_config}",
    ]


def rendered(settings: Mapping[str, str]) -> str:
    """Return settings as the text of a Java properties file."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items())


def _escaped(value: str) -> str:
    plain = value.replace("\\", "\\\\")
    return "".join(c if c.isascii() else "".join(f"\\u{unit:04x}" for unit in _utf16(c)) for c in plain)


def _utf16(character: str) -> list[int]:
    data = character.encode("utf-16-be")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
