"""What ends a task of the service, and what it begins again after."""

from __future__ import annotations

import asyncio

import pytest

from upon.errors import KafkaDamaged, KafkaUnavailable
from upon.service import guard


async def test_damage_is_told_as_itself_from_within_a_group() -> None:
    async def task() -> None:
        raise BaseExceptionGroup("tasks", [KafkaUnavailable("away"), ExceptionGroup("more", [KafkaDamaged("cut it")])])

    with pytest.raises(KafkaDamaged, match="cut it"):
        await guard.forever("read", task)


async def test_what_passes_is_begun_again_and_what_nobody_thought_of_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "AGAIN_AFTER", 0.0)
    begun = 0

    async def task() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise ExceptionGroup("tasks", [KafkaUnavailable("away"), OSError("gone")])
        raise ExceptionGroup("tasks", [ValueError("a bug")])

    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(guard.forever("read", task), 30)
    assert begun == 3
