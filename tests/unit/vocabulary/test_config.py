"""Settings: argument over environment over profile over default; what is wrong is named with its place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from upon.config import Home, Settings, write_private
from upon.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("UPON_")]:
        monkeypatch.delenv(name)


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Home(tmp_path).write_profile(service="http://profile", token="profile", kafka="profile:1")
    monkeypatch.setenv("UPON_TOKEN", "environment")
    monkeypatch.setenv("UPON_KAFKA", "environment:1")
    settings = Settings.load(tmp_path, kafka="argument:1", site=None)
    assert settings.service == "http://profile"
    assert settings.token == "environment"
    assert settings.kafka == "argument:1"
    assert settings.site == "local"


def test_the_home_is_the_argument_else_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPON_HOME", str(tmp_path / "a"))
    assert Settings.load().home == tmp_path / "a"
    assert Settings.load(tmp_path / "b").home == tmp_path / "b"


def test_a_wrong_value_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPON_WORKERS", "many")
    with pytest.raises(ConfigError, match=r"workers \(environment UPON_WORKERS or .*profile.json\).*'many'"):
        Settings.load(tmp_path)


def test_a_timeout_is_a_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPON_TASK_TIMEOUT", "30m")
    assert Settings.load(tmp_path).task_timeout == 1800.0
    monkeypatch.setenv("UPON_TASK_TIMEOUT", "soon")
    with pytest.raises(ConfigError, match=r"task_timeout .*'soon' is not a duration"):
        Settings.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_profile_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(ConfigError, match=r"profile\.json: .*upon up"):
        Settings.load(tmp_path)


def test_without_kafka_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="upon up"):
        Settings.load(tmp_path).need_kafka()


def test_the_profile_is_private_and_updated_whole(tmp_path: Path) -> None:
    home = Home(tmp_path / "new")
    home.write_profile(token="a", kafka="k")
    home.write_profile(token="b")
    assert home.read_profile() == {"token": "b", "kafka": "k"}
    assert stat.S_IMODE(home.profile.stat().st_mode) == 0o600
    assert os.listdir(home.path) == ["profile.json"]


def test_a_home_is_private_and_one_that_was_open_is_closed(tmp_path: Path) -> None:
    home = Home(tmp_path / "new" / "home")
    assert home.make() == []
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    for folder in (home.logs, home.path / "mine"):
        folder.mkdir(mode=0o755)
    home.path.chmod(0o755)
    assert home.make() == [home.path, home.logs]
    assert [stat.S_IMODE(place.stat().st_mode) for place in (home.path, home.logs)] == [0o700, 0o700]
    assert stat.S_IMODE((home.path / "mine").stat().st_mode) == 0o755, "what is not ours is left as it is"
    assert home.make() == []


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"home .*/file/home cannot be made: Not a directory.*--home"):
        Home(tmp_path / "file" / "home").make()


def test_a_file_that_cannot_be_replaced_stands_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "there" / "x").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "there", "text")
    assert os.listdir(tmp_path) == ["there"]


def test_no_message_shows_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        Settings.load(tmp_path, token=["geheim"])
    assert "geheim" not in str(raised.value)
    assert raised.value.__cause__ is None
