"""`upon invoke` at a site that is down: it says so while it waits, and prints the result when there is one."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.services import DEADLINE, TOKEN, Records, result, service
from upon.kafka.admin import ensure_topics
from upon.messages import InvocationBatch
from upon.topics import Topics


async def test_a_site_that_is_down_is_named_while_it_waits(kafka: str, topics: Topics, tmp_path: Path) -> None:
    records = Records(kafka, topics)
    await ensure_topics(kafka, topics.of_site("away"))
    await records.announce("away", state="down")
    async with service(kafka, topics, tmp_path / "home") as running:
        await running.register()
        await running.wait_site("away")
        environment = os.environ | {"UPON_SERVICE": running.url, "UPON_TOKEN": TOKEN, "UPON_HOME": str(tmp_path)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "upon", "invoke", "demo.double", "--site", "away", "--", "2",
            env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            async with asyncio.timeout(DEADLINE):
                said = (await process.stderr.readline()).decode()
            assert said.startswith("site away is down: its dispatcher on here was last heard of at ")
            assert "Ctrl-C stops the waiting, not the task" in said
            (batch,) = await records.read(topics.invocations("away"), InvocationBatch, 1)
            await records.results(result(batch.invocations[0].id, 4), site="away")
            async with asyncio.timeout(DEADLINE):
                out, _ = await process.communicate()
            assert (process.returncode, out) == (0, b"4\n")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
