"""Logs that somebody or something cut off while Kafka was stopped: found before it starts.

After a clean stop Kafka takes its files as they are. One that ends within a batch (a disk that failed, a copy that was
not complete) it reads from the last index entry on, takes the log for shorter than it is or for empty, and writes
new records behind the old bytes, where nobody can read them. Without the mark of a clean stop it looks at each log's
end as after a power cut: cuts off the half batch, keeps what stands before, and goes on behind that.

Cost: two small reads for each partition; the walk begins at the last index entry, which is at most 4 KB of batches
before the end. Not here: bytes that were changed within a log (whoever reads them says so: `KafkaDamaged`).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

CLEAN = ".kafka_cleanshutdown"
"""The file in which Kafka notes that it was stopped well."""
HEADER = struct.Struct(">qiib")
"""How each batch begins: first offset, length of what follows these two, leader epoch, format."""
PREFIX = 12
"""Bytes of a batch that its length does not count."""
FORMAT = 2


def cut_off(data: Path) -> list[str]:
    """Return the partitions (TOPIC-NUMBER) whose log ends within a batch, though Kafka was stopped well.

    Args:
        data: the folder of all partitions.
    """
    if not (data / CLEAN).exists():
        return []
    newest = {log.parent: log for log in sorted(data.glob("*-*/*.log"))}
    return [folder.name for folder, log in newest.items() if ends_within_a_batch(log)]


def have_checked(data: Path) -> None:
    """Let Kafka look at the ends of all logs when it starts."""
    (data / CLEAN).unlink(missing_ok=True)


def ends_within_a_batch(log: Path) -> bool:
    """Return whether a segment's last batch is not whole. False also for what is no log: that is not known here."""
    try:
        size = log.stat().st_size
        with log.open("rb") as file:
            return _walk(file, _last_indexed(log.with_suffix(".index")), size)
    except OSError:
        return False


def _walk(file: BinaryIO, at: int, size: int) -> bool:
    while at < size:
        file.seek(at)
        head = file.read(HEADER.size)
        if len(head) < HEADER.size:
            return True
        _, length, _, form = HEADER.unpack(head)
        if form != FORMAT or length < HEADER.size - PREFIX:
            return False
        at += PREFIX + length
    return at > size


def _last_indexed(index: Path) -> int:
    """Return where the batch of the last index entry begins; 0 if there is none."""
    try:
        with index.open("rb") as file:
            entries = index.stat().st_size // 8
            file.seek(max(0, entries - 1) * 8)
            return int.from_bytes(file.read(8)[4:], "big")
    except OSError:
        return 0
