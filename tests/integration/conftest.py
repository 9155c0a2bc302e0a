"""A service for the tests of this folder: one for each module, or one of a test's own.

A module that uses them runs in one event loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest_asyncio

from tests.services import Running, service
from upon.kafka.admin import ensure_topics
from upon.topics import Topics


@asynccontextmanager
async def _started(kafka: str) -> AsyncIterator[Running]:
    topics = Topics(f"test-{secrets.token_hex(4)}")
    await ensure_topics(kafka, [*topics.shared(), *topics.of_site("local")])
    async with service(kafka, topics) as one:
        await one.records.announce()
        await one.wait_site()
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(kafka: str) -> AsyncIterator[Running]:
    """A service that all tests of a module share. It knows the site `local`."""
    async with _started(kafka) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def alone(kafka: str) -> AsyncIterator[Running]:
    """A service of a test's own, for those who count all that is there, or stop it. It knows the site `local`."""
    async with _started(kafka) as one:
        yield one
