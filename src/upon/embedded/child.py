"""One child process of the supervisor: spawned in its own group, logged to its own file, heard when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from upon.config import PRIVATE
from upon.part import READY_FD

LARGEST_LOG = 10 * 1024 * 1024
"""Bytes: a larger log is moved to NAME.log.1 when its part starts."""


class Child:
    """A running process.

    Attributes:
        ready: done when the child said so; the result is what it told (empty if it ended without).
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid
        self.ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    async def spawn(
        cls, argv: list[str], environment: dict[str, str], log: Path, on_report: Callable[[dict[str, Any]], None]
    ) -> Child:
        """Start `argv` with this environment, output appended to `log`.

        Args:
            on_report: called with what the child tells after it was ready.

        Raises:
            OSError: the program cannot be started, or the log not be written.
        """
        log.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        if log.exists() and log.stat().st_size > LARGEST_LOG:
            os.replace(log, log.with_name(log.name + ".1"))
        reading, writing = os.pipe()
        try:
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**environment, READY_FD: str(writing)},
                    pass_fds=(writing,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        child = cls(process)
        child._hearing = asyncio.create_task(child._hear(reading, on_report))
        return child

    async def wait(self) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        return await self.process.wait()

    def tell(self, number: int) -> None:
        """Send a signal to the child alone, if it still runs."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    def kill_group(self) -> None:
        """Kill the child and whatever of its process group is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _hear(self, descriptor: int, on_report: Callable[[dict[str, Any]], None]) -> None:
        """Read what the child tells, a JSON line each, of whatever length, until it closes its end."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
        )
        rest = b""
        try:
            while data := await reader.read(65_536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    info = dict(json.loads(line))
                    if not self.ready.done():
                        self.ready.set_result(info)
                    else:
                        on_report(info)
        finally:
            transport.close()
            if not self.ready.done():
                self.ready.set_result({})
