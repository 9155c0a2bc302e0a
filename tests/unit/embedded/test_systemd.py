"""The unit that `upon install-service` writes: systemd takes it, whatever the home is called; secrets are not in it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from upon.embedded import systemd
from upon.errors import ConfigError


@pytest.mark.parametrize("user", ["", "root"])
@pytest.mark.parametrize("name", ["plain", "two words", "50%", "a\"b'c", "zürich", "$HOME"])
def test_systemd_takes_the_unit(tmp_path: Path, user: str, name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    home = tmp_path / name
    home.mkdir()
    unit = tmp_path / "upon-test.service"
    unit.write_text(systemd.unit(home, Path(sys.executable), environment=home / "environment", user=user))
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", *([] if user else ["--user"]), "verify", "--recursive-errors=no", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    ours = [line for line in said.stderr.splitlines() if "upon-test" in line]
    assert said.returncode == 0, said.stderr
    assert ours == []


def test_the_unit_runs_the_system_of_its_home_and_waits_until_it_is_ready() -> None:
    text = systemd.unit(Path("/var/lib/upon"), Path("/opt/python"), environment=Path("/var/lib/upon/e"), user="upon")
    assert "ExecStart=/opt/python -m upon up --home /var/lib/upon\n" in text
    assert "Type=notify\n" in text
    assert "User=upon\n" in text
    assert "User=" not in systemd.unit(Path("/h"), Path("/p"), environment=Path("/e"))


def test_variables_stand_in_a_file_quoted() -> None:
    text = systemd.environment_file({"UPON_TOKEN": 'a"b\\c', "UPON_LISTEN": "0.0.0.0:8700"})
    assert text.splitlines()[1:] == ['UPON_LISTEN="0.0.0.0:8700"', 'UPON_TOKEN="a\\"b\\\\c"']
    with pytest.raises(ConfigError, match="UPON_TOKEN has a line break"):
        systemd.environment_file({"UPON_TOKEN": "a\nb"})


def test_the_command_writes_a_unit_of_the_users_own(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UPON_")}
    environment |= {"XDG_CONFIG_HOME": str(tmp_path / "config"), "UPON_TOKEN": "geheim"}
    command = [sys.executable, "-m", "upon", "install-service", "--home", str(tmp_path / "home")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    unit = tmp_path / "config" / "systemd" / "user" / "upon.service"
    assert str(unit) in said.stdout
    assert "systemctl --user daemon-reload && systemctl --user enable --now upon" in said.stdout
    assert "geheim" not in unit.read_text()
    kept = tmp_path / "home" / "environment"
    assert 'UPON_TOKEN="geheim"' in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    printed = subprocess.run([*command, "--print"], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout == unit.read_text()
