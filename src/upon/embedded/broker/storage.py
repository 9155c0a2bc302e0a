"""The storage of a new broker: Kafka's own tool formats the first one of a user, and what it wrote is copied then.

What the tool writes depends on nothing but Kafka's version and our settings, save the ids. It takes 0.4 s and a JVM.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from upon.embedded.broker import kept, properties
from upon.embedded.broker.folder import new_id
from upon.embedded.broker.jars import KAFKA, cache_folder

BOOTSTRAP, META = "bootstrap.checkpoint", "meta.properties"
"""The records a new controller begins with, and the ids. The second is written last: who has it is formatted."""


def copy(data: Path, cluster: str) -> bool:
    """Format a broker's data folder with what was kept; return whether that could be done.

    Args:
        data: the folder, made if it is not there.
        cluster: id of the new cluster.
    """
    first = kept.find(_stem(), ".checkpoint")
    if first is None:
        return False
    meta = {"version": "1", "cluster.id": cluster, "node.id": str(properties.NODE), "directory.id": new_id()}
    try:
        data.mkdir(parents=True, exist_ok=True)
        _write(data / BOOTSTRAP, first.read_bytes())
        _write(data / META, properties.rendered(meta).encode())
    except OSError:
        return False
    return True


def keep(data: Path) -> None:
    """Keep what Kafka's tool wrote, for those to come; if that does not work, the tool formats for them too."""
    temporary = cache_folder() / f".{_stem()}.{os.getpid()}"
    with contextlib.suppress(OSError):
        shutil.copyfile(data / BOOTSTRAP, temporary)
        kept.keep(temporary, _stem(), ".checkpoint")
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def _stem() -> str:
    settings = properties.rendered(properties.server_properties(Path("data"), 1, 2))
    return f"kafka-{KAFKA}-storage-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"


def _write(file: Path, content: bytes) -> None:
    """Write a file whole, on the disk when this returns."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    temporary.replace(file)
