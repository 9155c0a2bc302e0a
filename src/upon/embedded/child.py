"""One child process of the supervisor: spawned in its own group, logged to its own file, heard when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from pathlib import Path
from typing import Any

from upon.embedded.logfile import LogFile
from upon.machine import PRIVATE
from upon.part import READY_FD

PIPE = 1024 * 1024
"""Bytes that a part may say while its supervisor is busy, where the system allows so many."""


LONGEST_LINE = 64 * 1024 * 1024
"""Bytes that a child may tell when it is ready: a part with many thousand sources names them all."""


class Child:
    """A running process.

    Attributes:
        ready: done when the child said so; the result is what it told (empty if it ended without).
    """

    def __init__(
        self, process: asyncio.subprocess.Process, ready: asyncio.Task[dict[str, Any]], log: LogFile, said: int
    ) -> None:
        self.process = process
        self._log, self._said = log, said
        asyncio.get_running_loop().add_reader(said, self._write_log)
        self.pid = process.pid
        self.ready = ready

    @classmethod
    async def spawn(cls, argv: list[str], environment: dict[str, str], log: Path) -> Child:
        """Start `argv` with this environment, its output read into `log`.

        Raises:
            OSError: the program cannot be started, or the log not be written.
        """
        log.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        file = LogFile(log)
        reading, writing = os.pipe()
        said, saying = _log_pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=saying,
                stderr=saying,
                env={**environment, READY_FD: str(writing)},
                pass_fds=(writing,),
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            os.close(said)
            file.close()
            raise
        finally:
            os.close(writing)
            os.close(saying)
        return cls(process, asyncio.create_task(_read_ready(reading)), file, said)

    async def wait(self) -> int:
        """Wait for the end; return the exit code, negative for a signal. Its log has then what it said."""
        code = await self.process.wait()
        self._write_log()
        return code

    def _write_log(self) -> None:
        """Take in what was said; at the end, which is when nobody is left who could say something, close the log."""
        if self._said >= 0 and not self._log.read(self._said):
            asyncio.get_running_loop().remove_reader(self._said)
            os.close(self._said)
            self._said = -1
            self._log.close()

    def tell(self, number: int) -> None:
        """Send a signal to the child alone, if it still runs."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    def kill_group(self) -> None:
        """Kill the child and whatever of its process group is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


async def _read_ready(descriptor: int) -> dict[str, Any]:
    """Return what a child tells, of whatever length; empty if it ends without a word."""
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        line = await reader.readline()
        return dict(json.loads(line)) if line else {}
    finally:
        transport.close()


def _log_pipe() -> tuple[int, int]:
    """Return the ends of a pipe for a part's output; reading does not block."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
    return reading, writing
