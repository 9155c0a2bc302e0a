"""The embedded broker: real Apache Kafka, one node that is broker and controller (KRaft), in one folder.

    folder/broker.json           cluster id and ports, kept between starts
    folder/server.properties     written at each start, as is logging.properties
    folder/data/                 records and metadata; formatted once
    folder/logs/kafka.0.log      Kafka's log, at most 5 MB, and one older; output.log: what the JVM printed

Guarantees: what was acknowledged is there after a restart, a kill -9 and a full disk; the address stays the same
as long as its port is free; a broker whose supervisor is gone is stopped, not run into; nothing that is left
behind blocks the next start; every failure says what to do.

Preparing (`prepare`) is apart from running: a supervisor spawns `command()` itself, tests use `start()`.
Not here: restarts of a broker that died (the supervisor's), topics (`upon.kafka.admin`).
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from upon.config import write_private
from upon.embedded import diagnosis, jars, leftover, ports, properties
from upon.embedded.java import Java, find_java
from upon.errors import KafkaStartError
from upon.kafka import answers
from upon.logs import get_logger

ROOM = 64 * 1024 * 1024
"""Bytes that must be free to start: less would be full within minutes."""
STOP_TIMEOUT = 10.0
"""Seconds that a broker gets to stop cleanly. It needs 0.3."""

log = get_logger(__name__)


class Broker:
    """One embedded broker.

    Args:
        folder: its folder, made if it is not there.
        port: where clients connect, on 127.0.0.1; None: that of the last start if it is free, else any free one.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = Path(folder).absolute()
        self.data = self.folder / "data"
        self.logs = self.folder / "logs"
        self.output_file = self.logs / "output.log"
        self.log_file = self.logs / "kafka.0.log"
        self._wanted_port = port
        self._settings = self.folder / "server.properties"
        self._logging = self.folder / "logging.properties"
        self._java: Java | None = None
        self._jars: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._state: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """The bootstrap address, HOST:PORT; known once prepared."""
        return f"{ports.HOST}:{self.port}"

    @property
    def port(self) -> int:
        """Where clients connect; 0 before the first `prepare`."""
        return int(self._state.get("port") or self._read_state().get("port") or 0)

    @property
    def cluster(self) -> str:
        """Kafka's id of this cluster of one, 22 characters."""
        return str(self._state.get("cluster", ""))

    @property
    def pid(self) -> int | None:
        """The process id of the broker that runs in this folder, whoever started it; None: none runs."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        found = leftover.running(self._settings)
        return found.pid if found else None

    def prepare(self) -> None:
        """Do all that must be done before the broker can start. Doing it twice does no harm.

        Finds Java, fetches Kafka's jars, stops a broker whose supervisor is gone, chooses ports, writes the settings
        and formats the storage. If this process's own broker runs already, it is left alone.

        Raises:
            JavaNotFound: there is no Java 17 or newer.
            KafkaInstallError: the jars cannot be fetched.
            KafkaStartError: another process's broker uses the folder, a port is taken, no room, no right to write.
        """
        self._java = find_java()
        self._jars = jars.class_path()
        if self._runs_already():
            self._state = self._read_state()
            return
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self._check_room()
            self._state = self._chosen_state()
            self._write_settings()
        except OSError as error:
            raise KafkaStartError(
                f"Kafka's folder {self.folder} cannot be written: {error.strerror or error}. Correct that, or choose "
                f"another home with `--home DIR`, or {jars.ELSEWHERE}"
            ) from error
        if not (self.data / "meta.properties").exists():
            self._format()

    def command(self) -> list[str]:
        """Return the command line that runs the broker in the foreground; prepare first.

        The broker is marked as belonging to the process that asks: when that is gone, the next `prepare` stops it.
        SIGTERM stops it cleanly. Give it a session of its own, or Ctrl-C stops it before the parts that need it.
        """
        return [*self._java_command(leftover.parent_flag()), leftover.MAIN, str(self._settings)]

    def environment(self) -> dict[str, str]:
        """Return the environment to run `command` with."""
        # The C library would set aside memory for each of 80 threads.
        return {**os.environ, "MALLOC_ARENA_MAX": "2"}

    def start(self) -> None:
        """Prepare and start the broker as a child that stops when this process ends; return at once.

        Raises:
            KafkaError: as `prepare`.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.prepare()
        if found := leftover.running(self._settings):
            raise KafkaStartError(f"a Kafka of this process uses {self.folder} already (pid {found.pid})")
        with self.output_file.open("wb") as output:
            self._process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 (it makes one system call and takes no lock)
            )
        log.info("Kafka is starting", action="start", pid=self._process.pid, address=self.address)

    def is_ready(self) -> bool:
        """Return whether this broker (not another at its port) answers and does its work."""
        return answers.is_ready(self.address, self.cluster or None)

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until the broker answers.

        Args:
            timeout: s. A start takes 1.5 s, 4 s after kill -9, and longer on a busy machine.

        Raises:
            KafkaStartError: it ended, or did not answer in time; the message says why and what to do.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if self._process is not None and self._process.poll() is not None:
                raise KafkaStartError(self.diagnose())
            if time.monotonic() > deadline:
                raise KafkaStartError(f"no answer at {self.address} within {timeout:g} s. {self.diagnose()}")
            time.sleep(answers.INTERVAL)

    async def wait_ready_async(self, timeout: float = 30.0) -> bool:
        """Wait until the broker answers; return False when `timeout` s have passed. Watch its process yourself."""
        return await answers.answers(self.address, timeout, self.cluster or None)

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop the broker cleanly, by force after `timeout` s; return when it is gone. None runs: do nothing."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        elif found := leftover.running(self._settings):
            leftover.stop(found, timeout)

    def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would; return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        elif found := leftover.running(self._settings):
            leftover.stop(found, 0.0)

    def diagnose(self, output: str | None = None, exit_code: int | None = None) -> str:
        """Return why the broker ended or does not answer, as a sentence with what to do.

        Args:
            output: what its JVM printed; default: what `output_file` holds.
            exit_code: how it ended, negative: by that signal; default: that of the broker that `start` started.
        """
        if exit_code is None and self._process is not None:
            exit_code = self._process.poll()
        evidence = diagnosis.Evidence(
            log=_tail(self.log_file),
            output=_tail(self.output_file) if output is None else output,
            folder=str(self.folder),
            data=str(self.data),
            log_file=str(self.log_file),
            port=self.port,
            port_owner=ports.owner(self.port) if self.pid is None else "",
            free=shutil.disk_usage(self.folder).free if self.folder.exists() else 1 << 40,
            exit_code=exit_code,
        )
        if diagnosis.cause(evidence) == "jar":
            jars.forget()
        return diagnosis.explain(evidence)

    def _runs_already(self) -> bool:
        """Return whether this process's broker runs here; stop one whose supervisor is gone.

        Raises:
            KafkaStartError: it belongs to another process, which is alive.
        """
        broker = leftover.running(self._settings)
        if broker is None:
            return False
        owner = leftover.owner(broker)
        if owner is None:
            log.info("stopping a Kafka whose supervisor is gone", action="stop", pid=broker.pid)
            leftover.stop(broker, STOP_TIMEOUT)
            return False
        if owner.pid == os.getpid():
            return True
        raise KafkaStartError(
            f"a Kafka runs in {self.folder} already (pid {broker.pid}, started by pid {owner.pid}): stop it with "
            "`upon down`, or choose another home with `--home DIR`"
        )

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < ROOM:
            raise KafkaStartError(
                f"no room for Kafka: {free // 1024**2} MB are free on the disk of {self.folder}, it needs "
                f"{ROOM // 1024**2} MB. Free some, or choose a home on another disk with `--home DIR`, "
                f"or {jars.ELSEWHERE}"
            )

    def _chosen_state(self) -> dict[str, Any]:
        """Return cluster id and ports for this start: the last ones where possible."""
        last = self._read_state()
        port, controller = self._wanted_port or last.get("port"), last.get("controller_port")
        if self._wanted_port and not ports.is_free(self._wanted_port):
            by = ports.owner(self._wanted_port)
            raise KafkaStartError(
                f"port {port} of {ports.HOST} is taken{f' by {by}' if by else ''}: end that program, or choose "
                f"another port, or {jars.ELSEWHERE}"
            )
        if not port or not ports.is_free(port):
            port = ports.free_port()
        if not controller or controller == port or not ports.is_free(controller):
            controller = ports.free_port(avoid=[port])
        return {"cluster": self._cluster_on_disk() or _new_cluster(), "port": port, "controller_port": controller}

    def _cluster_on_disk(self) -> str:
        try:
            lines = (self.data / "meta.properties").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return next((line.partition("=")[2].strip() for line in lines if line.startswith("cluster.id=")), "")

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.folder / "broker.json").read_text())
        except (OSError, ValueError):  # only convenience is lost: other ports are chosen
            return {}
        return state if isinstance(state, dict) else {}

    def _write_settings(self) -> None:
        settings = properties.server_properties(self.data, self._state["port"], self._state["controller_port"])
        write_private(self._settings, properties.rendered(settings))
        write_private(self._logging, properties.rendered(properties.logging_properties(self.logs / "kafka.log")))
        write_private(self.folder / "broker.json", json.dumps(self._state) + "\n")

    def _format(self) -> None:
        """Format the storage. Kafka writes the file that marks it as formatted last, so a cut leaves no half."""
        done = subprocess.run(
            [
                *self._java_command(),
                *("kafka.tools.StorageTool", "format", "-t", self.cluster, "-c", str(self._settings)),
            ],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise KafkaStartError(self.diagnose(done.stdout + done.stderr, done.returncode))

    def _java_command(self, *flags: str) -> list[str]:
        if self._java is None:
            raise RuntimeError("prepare() the broker first")
        class_path = os.pathsep.join(map(str, self._jars))
        return [str(self._java.path), *properties.jvm_flags(self._logging, self.logs), *flags, "-cp", class_path]


def _new_cluster() -> str:
    """Return a new cluster id: a UUID in Kafka's form. One that begins with '-' would be read as an option."""
    while (name := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        pass
    return name


def _tail(file: Path, count: int = 256 * 1024) -> str:
    """Return the last `count` bytes of a file as text; empty if there is none."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - count))
            return opened.read().decode(errors="replace")
    except OSError:
        return ""


def _end_with_parent() -> Callable[[], None] | None:
    """Return what a child calls before it becomes Java, so that the kernel ends it with this process; Linux only.

    The kernel looks at the thread that started the child, hence not from a thread that may end before.
    """
    if not sys.platform.startswith("linux") or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl
    set_death_signal = 1
    return lambda: prctl(set_death_signal, signal.SIGTERM)
