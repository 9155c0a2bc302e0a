from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.sdk.small_service import TOKEN, SmallService
from upon import Executor
from upon.config import Home


@pytest.fixture
def service() -> Iterator[SmallService]:
    service = SmallService()
    service.start()
    yield service
    service.close()


@pytest.fixture
def home(tmp_path: Path, service: SmallService) -> Path:
    Home(tmp_path / "home").write_profile(service=service.address, token=TOKEN)
    return tmp_path / "home"


@pytest.fixture
def executor(home: Path) -> Iterator[Executor]:
    with Executor(home=home) as executor:
        yield executor
