"""Files that are made once for all systems of this user, in the cache folder: each is whole, or is not used.

Who reads one believes what it says: Java runs what a damaged class archive holds. So the name carries the checksum,
which is compared before each use (15 ms for 60 MB).
"""

from __future__ import annotations

import zlib
from pathlib import Path

from upon.embedded.broker.jars import cache_folder
from upon.logs import get_logger

log = get_logger(__name__)


def find(stem: str, suffix: str) -> Path | None:
    """Return the file that was kept by this name; None if there is none. A damaged one is removed."""
    for file in cache_folder().glob(f"{stem}-*{suffix}"):
        if _checksum(file) == file.stem.rpartition("-")[2]:
            return file
        log.info("a file of the cache is damaged; Kafka starts without", action="start", file=str(file))
        file.unlink(missing_ok=True)
    return None


def keep(file: Path, stem: str, suffix: str) -> Path:
    """Move a file, which must be in the cache folder, to its name; return that.

    Raises:
        OSError: it cannot be moved.
    """
    return file.replace(cache_folder() / f"{stem}-{_checksum(file)}{suffix}")


def _checksum(file: Path) -> str:
    """Return the CRC-32 of a file, 8 hexadecimal digits; empty if it cannot be read."""
    crc = 0
    try:
        with file.open("rb") as opened:
            while part := opened.read(1 << 20):
                crc = zlib.crc32(part, crc)
    except OSError:
        return ""
    return f"{crc:08x}"
