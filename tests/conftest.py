"""What tests of every kind share: one real Kafka for the session, and topics of their own for each test.

In a parallel run (`make test`; pytest-xdist) each worker is a session: it has a Kafka of its own. The tests of one
file run on one worker, so what a file prepares is prepared once; all tests that share the `system` run on one too.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.systems import System, running
from upon.embedded.broker.broker import Broker
from upon.errors import JavaNotFound, KafkaInstallError
from upon.kafka.admin import ensure_topics
from upon.topics import Topics

gc.disable()  # until all tests are collected
TESTS = Path(__file__).parent
STARTED = pytest.StashKey[float]()
"""When the run began (s, monotonic)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--budget", type=float, metavar="SECONDS", help="say so if the run takes longer")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """What is slow comes first, so that the many quick tests of `unit` fill the gaps at the end of a parallel run.

    Raises:
        UsageError: pytest-xdist does not keep the groups.
    """

    def shares_the_system(item: pytest.Item) -> bool:
        return "system" in getattr(item, "fixturenames", ())

    def rank(item: pytest.Item) -> int:
        return 0 if shares_the_system(item) else 2 if "unit" in item.path.relative_to(TESTS).parts else 1

    for item in items:
        item.add_marker(pytest.mark.xdist_group("system" if shares_the_system(item) else str(item.path)))
    items.sort(key=rank)
    yield
    # With a pytest that it does not know it passes the groups over, and says nothing: each worker would start all.
    if getattr(config.option, "loadgroup", False) and any("@" not in item.nodeid for item in items):
        raise pytest.UsageError("pytest-xdist does not group the tests with this pytest; see pyproject.toml")


def pytest_collection_finish() -> None:
    """Leave what was collected alone: looking through it for garbage, again and again, takes seconds of each run."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionstart(session: pytest.Session) -> None:
    # A shell has what runs in its background ignore Ctrl-C, and all that a test starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    session.config.stash[STARTED] = time.monotonic()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    budget: float | None = config.getoption("--budget")
    took = time.monotonic() - config.stash[STARTED]
    if budget is not None and took > budget:
        terminalreporter.write_line(f"The tests took {took:.0f} s; their budget is {budget:.0f} s (CONTRIBUTING.md).")


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The bootstrap address of one real Kafka, started once and stopped with the session, however that ends."""
    folder = Path(tempfile.mkdtemp(prefix="upon-kafka-"))
    broker = Broker(folder)
    # SIGTERM (a time limit of CI) then unwinds like Ctrl-C; after SIGKILL the kernel ends the broker.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            broker.start()
        except (JavaNotFound, KafkaInstallError) as error:
            missing(str(error))
        broker.wait_ready(60)
        yield broker.address
    finally:
        broker.stop()
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def topics(kafka: str) -> Topics:
    """Topics under a prefix of this test's own: the shared ones and those of the site `local` exist."""
    names = Topics(f"test-{secrets.token_hex(4)}")
    asyncio.run(ensure_topics(kafka, [*names.shared(), *names.of_site("local")]))
    return names


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A whole system, started by `upon up`, with its own Kafka and a watched folder; shared by all tests."""
    with running(tmp_path_factory.mktemp("system")) as started:
        yield started


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 96 MB of its own, to be filled; needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a disk: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def missing(reason: str) -> None:
    """Skip a test whose server is missing on a person's machine; in CI (the variable CI is set) it fails."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
