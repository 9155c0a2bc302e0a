"""One child process of the supervisor: spawned in its own group, logged to its own file, heard when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from upon.part import READY_FD

LARGEST_LOG = 10 * 1024 * 1024
"""Bytes: a larger log is moved to NAME.log.1 when its part starts."""


class Child:
    """A running process.

    Attributes:
        ready: set when the child said so; the result is what it told (empty if it ended without).
    """

    def __init__(self, process: asyncio.subprocess.Process, ready: asyncio.Task[dict[str, Any]]) -> None:
        self.process = process
        self.pid = process.pid
        self.ready = ready

    @classmethod
    async def spawn(cls, argv: list[str], environment: dict[str, str], log: Path) -> Child:
        """Start `argv` with `environment` over ours, output appended to `log`.

        Raises:
            OSError: the program cannot be started, or the log not be written.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
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
                    env={**os.environ, **environment, READY_FD: str(writing)},
                    pass_fds=(writing,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return cls(process, asyncio.create_task(_read_ready(reading)))

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


async def _read_ready(descriptor: int) -> dict[str, Any]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        line = await reader.readline()
        return dict(json.loads(line)) if line else {}
    finally:
        transport.close()
