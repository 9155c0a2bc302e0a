"""What the tests of this folder share: an executor and a client of the whole system, or a service without the rest.

A service is there for each module, or of a test's own. A module that uses one runs in one event loop:
`pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.services import Running, service
from tests.systems import System
from upon import Client, Executor
from upon.kafka.admin import ensure_topics
from upon.topics import Topics


@pytest.fixture(scope="module")
def executor(system: System) -> Iterator[Executor]:
    with Executor(home=system.home) as executor:
        yield executor


@pytest.fixture(scope="module")
def client(system: System) -> Iterator[Client]:
    with Client(home=system.home) as client:
        yield client


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
