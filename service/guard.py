"""Keeping a task of the service alive: what ends unexpectedly is logged and begun again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from upon.errors import UponError
from upon.logs import get_logger

AGAIN_AFTER = 0.5
"""Seconds before a task that failed begins again."""
log = get_logger(__name__)


async def forever(name: str, task: Callable[[], Awaitable[None]]) -> None:
    """Run `task` until cancelled; begin it again whenever it fails or returns."""
    while True:
        try:
            await task()
        except UponError as error:
            log.warning("begins again", action="retry", task=name, reason=str(error))
        except Exception:
            log.exception("failed, begins again", action="retry", task=name)
        await asyncio.sleep(AGAIN_AFTER)
