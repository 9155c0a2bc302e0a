"""The broker's folder: what is in it, and what it remembers between starts.

broker.json          cluster id and ports of the last start
server.properties    the broker's settings; these and logging.properties are written anew at each start
data/                records and metadata; formatted once
logs/kafka.0.log     Kafka's log, at most 5 MB; kafka.1.log is the older part; output.log: what the JVM printed
"""

from __future__ import annotations

import base64
import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from upon.config import write_private
from upon.embedded.broker import jars, properties
from upon.embedded.parts import ROOM
from upon.errors import KafkaStartError


@dataclass(frozen=True, slots=True)
class Identity:
    """What a broker is called and where it is found: cluster id (22 characters), ports on 127.0.0.1, 0 = none yet."""

    cluster: str = ""
    port: int = 0
    controller_port: int = 0


class BrokerFolder:
    """One broker's folder."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()
        self.data = self.path / "data"
        self.logs = self.path / "logs"
        self.log = self.logs / "kafka.0.log"
        self.output = self.logs / "output.log"
        self.settings = self.path / "server.properties"
        self.logging = self.path / "logging.properties"
        self._identity = self.path / "broker.json"

    @property
    def formatted(self) -> bool:
        """Whether the storage is formatted. Kafka writes this file last and in one step: there is no half."""
        return (self.data / "meta.properties").exists()

    @property
    def free(self) -> int:
        """Bytes free on the folder's disk; a large number if that cannot be told."""
        try:
            return shutil.disk_usage(self.path).free
        except OSError:
            return 1 << 60

    def make(self) -> None:
        """Make the folder.

        Raises:
            KafkaStartError: there is no room, or Kafka could not use a folder of this name.
            OSError: it cannot be made.
        """
        if "," in str(self.path):
            raise KafkaStartError(
                f"{self.path} has a comma in its name, which Kafka takes for the end of the name: choose another home "
                "with `--home DIR`"
            )
        self.logs.mkdir(parents=True, exist_ok=True)
        if self.free < ROOM:
            raise KafkaStartError(
                f"no room for Kafka: {self.free // 1024**2} MB are free on the disk of {self.path}, it needs "
                f"{ROOM // 1024**2} MB. Free some, or choose a home on another disk with `--home DIR`, "
                f"or {jars.ELSEWHERE}"
            )

    def identity(self) -> Identity:
        """Return what the last start was. Without broker.json only the ports are lost: others are chosen."""
        try:
            state: Any = json.loads((self._identity).read_text())
            ports = int(state["port"]), int(state["controller_port"])
        except (OSError, ValueError, TypeError, KeyError):
            ports = 0, 0
        return Identity(self._cluster(), *ports)

    def write(self, identity: Identity) -> None:
        """Write all settings for a start as `identity`.

        Raises:
            OSError: they cannot be written.
        """
        settings = properties.server_properties(self.data, identity.port, identity.controller_port)
        write_private(self.settings, properties.rendered(settings))
        write_private(self.logging, properties.rendered(properties.logging_properties(self.logs / "kafka.log")))
        write_private(self._identity, json.dumps(asdict(identity)) + "\n")

    def _cluster(self) -> str:
        """Return the cluster id of the formatted storage: the data are the truth, whatever broker.json says."""
        try:
            lines = (self.data / "meta.properties").read_text().splitlines()
        except OSError:
            return ""
        return next((line.partition("=")[2].strip() for line in lines if line.startswith("cluster.id=")), "")


def new_id() -> str:
    """Return a new id of a cluster or a folder: a UUID in Kafka's form, not with '-' first, as options have it."""
    while (name := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        pass
    return name


def tail(file: Path, count: int = 256 * 1024) -> str:
    """Return the last `count` bytes of a file as text; empty if there is none."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - count))
            return opened.read().decode(errors="replace")
    except OSError:
        return ""
