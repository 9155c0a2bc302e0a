"""A wrong database URL is named without its password, wherever that stands in it."""

from __future__ import annotations

import logging
import traceback

import pytest

from upon.errors import ConfigError
from upon.service.store.store import Store


def _open(url: str) -> None:
    store = Store(url)
    try:
        store.open()
    finally:
        store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgres//upon:geheim@db/upon",
        "postgresql://upon:geheim/x@db/upon",
        "postgresql://upon:x@db:geheim/upon",
        "mysql://upon:geheim@db/upon",
        "mysql://db/upon?user=upon&password=geheim",
        "nonsense://upon:geheim@db/upon",
        "postgresql+psycopg://upon:geheim@127.0.0.1:1/upon",
        "postgresql+psycopg://127.0.0.1:1/upon?user=upon&password=geheim",
    ],
)
def test_no_message_shows_the_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigError) as raised:
        _open(url)
    said = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert "geheim" not in said
