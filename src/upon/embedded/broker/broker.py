"""The embedded broker: real Apache Kafka, one node that is broker and controller (KRaft), in one folder.

Guarantees: what was acknowledged is there after a restart, a kill -9 and a full disk; the address stays the same
as long as its port is free; a broker whose supervisor is gone is stopped, not run into; nothing that is left
behind blocks the next start; every failure says what to do.

Preparing (`prepare`) is apart from running: a supervisor spawns `command()` itself, tests use `start()`.
Not here: restarts of a broker that died (the supervisor's), topics (`upon.kafka.admin`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from upon.embedded import leftover, ports
from upon.embedded.broker import archive, diagnosis, jars, properties, segments, storage
from upon.embedded.broker.folder import BrokerFolder, Identity, new_id, tail
from upon.embedded.broker.java import Java, find_java
from upon.errors import KafkaStartError
from upon.kafka import answers
from upon.logs import get_logger

STOP_TIMEOUT = 10.0
"""Seconds that a broker gets to stop cleanly. It needs 0.3."""

log = get_logger(__name__)


class Broker:
    """One embedded broker.

    Args:
        folder: its folder, made if it is not there.
        port: where clients connect, on 127.0.0.1; None: that of the last start if it is free, else any free one.
        record: file for the names of all classes the broker loads, for a class archive; None: use the archive.

    Attributes:
        cut_off: partitions (TOPIC-NUMBER) that `prepare` found without their end, which is lost.
    """

    def __init__(self, folder: Path, *, port: int | None = None, record: Path | None = None) -> None:
        self.folder = BrokerFolder(folder)
        self._wanted_port = port
        self._record = record
        self._identity: Identity | None = None
        self._java: Java | None = None
        self._jars: list[Path] = []
        self._archive: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.cut_off: list[str] = []

    @property
    def address(self) -> str:
        """The bootstrap address, HOST:PORT; before `prepare` that of the last start, port 0 if there was none."""
        return f"{ports.HOST}:{self.identity.port}"

    @property
    def identity(self) -> Identity:
        """Cluster id and ports; before `prepare` those of the last start."""
        return self._identity or self.folder.identity()

    @property
    def pid(self) -> int | None:
        """The process id of the broker that runs in this folder, whoever started it; None: none runs."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        found = leftover.running(self.folder.settings)
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
        self._archive = archive.find(self._java, self._jars)
        if self._runs_already():
            self._identity = self.folder.identity()
            return
        try:
            self.folder.make()
            self._identity = _chosen(self.folder.identity(), self._wanted_port)
            self.folder.write(self._identity)
        except OSError as error:
            raise KafkaStartError(
                f"Kafka's folder {self.folder.path} cannot be written: {error.strerror or error}. Correct that, or "
                f"choose another home with `--home DIR`, or {jars.ELSEWHERE}"
            ) from error
        if not self.folder.formatted:
            self._format()
        elif found := segments.cut_off(self.folder.data):
            segments.have_checked(self.folder.data)
            self.cut_off = found

    def command(self) -> list[str]:
        """Return the command line that runs the broker in the foreground; prepare first.

        The broker is marked as belonging to the process that asks: when that is gone, the next `prepare` stops it.
        SIGTERM stops it cleanly. Give it a session of its own, or Ctrl-C stops it before the parts that need it.
        """
        return [*self._java_command(leftover.parent_flag()), leftover.MAIN, str(self.folder.settings)]

    def environment(self) -> dict[str, str]:
        """Return the environment to run `command` with."""
        return {
            **os.environ,
            "MALLOC_ARENA_MAX": "2",  # the C library would set memory aside for each of 80 threads
            "LC_ALL": "C.UTF-8",  # else Java cannot open a folder with an umlaut in its name
        }

    def jvm_flags(self) -> list[str]:
        """Return the JVM's flags, without those of a class archive."""
        return properties.jvm_flags(self.folder.logging, self.folder.logs)

    def start(self) -> None:
        """Prepare and start the broker as a child that ends when this process does; return at once.

        Raises:
            KafkaError: as `prepare`.
        """
        self.prepare()
        if found := leftover.running(self.folder.settings):
            raise KafkaStartError(f"Kafka runs in {self.folder.path} already (pid {found.pid}); stop it first")
        with self.folder.output.open("wb") as output:
            self._process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                cwd=self.folder.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 (it makes one system call and takes no lock)
            )
        log.info("Kafka is starting", action="start", pid=self._process.pid, address=self.address)

    def is_ready(self) -> bool:
        """Return whether this broker (not another at its port) answers and does its work."""
        return answers.is_ready(self.address, self.identity.cluster)

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until the broker answers. If another program took its port since it was chosen, it has another then.

        Args:
            timeout: s. A start takes 0.8 s, 1.5 s without class archive, 2 s more after kill -9.

        Raises:
            KafkaStartError: it ended, or did not answer in time; the message says why and what to do.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if self._process is not None and self._process.poll() is not None:
                if self._wanted_port is not None or not self.lost_port():
                    raise KafkaStartError(self.diagnose())
                self.start()
            if time.monotonic() > deadline:
                raise KafkaStartError(f"no answer at {self.address} within {timeout:g} s. {self.diagnose()}")
            time.sleep(answers.INTERVAL)

    async def wait_ready_async(self, timeout: float = 30.0) -> bool:
        """Wait until the broker answers; return False when `timeout` s have passed. Watch its process yourself."""
        return await answers.answers(self.address, timeout, self.identity.cluster)

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop the broker cleanly, by force after `timeout` s; return when it is gone. None runs: do nothing."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        elif found := leftover.running(self.folder.settings):
            leftover.stop(found, timeout)

    def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would; return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        elif found := leftover.running(self.folder.settings):
            leftover.kill(found)

    def diagnose(self, output: str | None = None, exit_code: int | None = None) -> str:
        """Return why the broker ended or does not answer, as a sentence with what to do.

        What can be repaired by the next start is marked for it: damaged jars, a class archive that crashes the JVM.

        Args:
            output: what its JVM printed; default: what `start` let it write to the folder.
            exit_code: how it ended, negative: by that signal; default: that of the broker that `start` started.
        """
        evidence = self._evidence(output, exit_code)
        named = diagnosis.cause(evidence)
        if named in ("jar", "crash"):
            jars.forget()
            if self._archive is not None:
                self._archive.unlink(missing_ok=True)
        return diagnosis.explain(evidence)

    def lost_port(self, output: str | None = None, exit_code: int | None = None) -> bool:
        """Return whether the broker ended because another program had its port; arguments as of `diagnose`."""
        return diagnosis.cause(self._evidence(output, exit_code)) == "port taken"

    def _evidence(self, output: str | None, exit_code: int | None) -> diagnosis.Evidence:
        if exit_code is None and self._process is not None:
            exit_code = self._process.poll()
        port = self.identity.port
        return diagnosis.Evidence(
            log=tail(self.folder.log),
            output=tail(self.folder.output) if output is None else output,
            folder=str(self.folder.path),
            data=str(self.folder.data),
            log_file=str(self.folder.log),
            port=port,
            port_owner=ports.owner(port) if self.pid is None else "",
            free=self.folder.free,
            exit_code=exit_code,
        )

    def _runs_already(self) -> bool:
        """Return whether this process's broker runs here; stop one whose supervisor is gone.

        Raises:
            KafkaStartError: it belongs to another process, which is alive.
        """
        broker = leftover.running(self.folder.settings)
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
            f"Kafka runs in {self.folder.path} already (pid {broker.pid}, started by pid {owner.pid}): stop it with "
            "`upon down`, or choose another home with `--home DIR`"
        )

    def _format(self) -> None:
        if storage.copy(self.folder.data, self.identity.cluster):
            return
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", self.identity.cluster]
        done = subprocess.run(
            [*self._java_command(), *tool, "--config", str(self.folder.settings)],
            env=self.environment(),
            cwd=self.folder.path,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise KafkaStartError(self.diagnose(done.stdout + done.stderr, done.returncode))
        storage.keep(self.folder.data)

    def _java_command(self, *more: str) -> list[str]:
        if self._java is None:
            raise RuntimeError("prepare() the broker first")
        classes = archive.recording(self._record) if self._record else archive.flags(self._archive)
        return [str(self._java.path), *self.jvm_flags(), *classes, *more, "-cp", os.pathsep.join(map(str, self._jars))]


def _chosen(last: Identity, wanted: int | None) -> Identity:
    """Return cluster id and ports for a start: the last ones where possible.

    Raises:
        KafkaStartError: the wanted port is taken.
    """
    port, controller = wanted or last.port, last.controller_port
    if wanted and not ports.is_free(wanted):
        by = ports.owner(wanted)
        raise KafkaStartError(
            f"port {wanted} of {ports.HOST} is taken{f' by {by}' if by else ''}: end that program, or choose another "
            f"port, or {jars.ELSEWHERE}"
        )
    if not port or not ports.is_free(port):
        port = ports.free_port()
    if not controller or controller == port or not ports.is_free(controller):
        controller = ports.free_port(avoid=[port])
    return Identity(last.cluster or new_id(), port, controller)


def _end_with_parent() -> Callable[[], None] | None:
    """Return what a child calls before it becomes Java, so that the kernel ends it with this process; Linux only.

    The kernel looks at the thread that started the child, hence not from a thread that may end before.
    """
    if not sys.platform.startswith("linux") or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl
    set_death_signal = 1
    return lambda: prctl(set_death_signal, signal.SIGTERM)
