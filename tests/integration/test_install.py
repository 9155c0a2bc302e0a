"""What is made once for each user: jars and class archive; an archive that is damaged is not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from upon.embedded.broker import archive, jars, storage
from upon.embedded.broker.broker import Broker
from upon.embedded.broker.folder import BrokerFolder
from upon.embedded.broker.java import find_java
from upon.errors import KafkaInstallError


@pytest.fixture
def class_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The jars, and a cache of the test's own without a class archive."""
    monkeypatch.setenv("UPON_CACHE", str(tmp_path / "cache"))
    try:
        return jars.class_path()
    except KafkaInstallError as error:
        missing(str(error))
        raise


def test_install_makes_what_starts_use(class_path: list[Path], tmp_path: Path) -> None:
    java = find_java()
    assert archive.find(java, class_path) is None
    done = subprocess.run(
        [sys.executable, "-m", "upon.embedded.broker.install"], capture_output=True, text=True, timeout=120, check=True
    )
    assert f"Java {java.release}" in done.stdout
    file = archive.find(java, class_path)
    assert file is not None
    assert file.stat().st_size > 1_000_000
    assert not [path for path in file.parent.iterdir() if path.name.startswith(".")]
    broker = Broker(tmp_path / "kafka")
    try:
        broker.start()
        broker.wait_ready(60)
        assert f"-XX:SharedArchiveFile={file}" in broker.command()
        broker.stop()
        file.chmod(0o644)
        with file.open("r+b") as opened:  # one byte, in the middle
            opened.seek(file.stat().st_size // 2)
            byte = opened.read(1)[0]
            opened.seek(-1, 1)
            opened.write(bytes([byte ^ 1]))
        broker.prepare()
        assert not file.exists()
        assert not [flag for flag in broker.command() if "SharedArchiveFile" in flag], "it starts as for `install`"
    finally:
        broker.kill()


def test_what_formatted_the_first_broker_formats_the_next(class_path: list[Path], tmp_path: Path) -> None:
    """Kafka's tool is asked once: it writes the time too, so that two of its making differ."""
    folders = [BrokerFolder(tmp_path / name) for name in ("first", "second")]
    for folder in folders:
        Broker(folder.path).prepare()
        assert folder.formatted
    one, other = ((folder.data / storage.BOOTSTRAP).read_bytes() for folder in folders)
    assert one == other
    ids = [set((folder.data / storage.META).read_text().split()) for folder in folders]
    assert {line.partition("=")[0] for line in ids[0] ^ ids[1] if "=" in line} >= {"cluster.id", "directory.id"}


def test_an_archive_that_cannot_be_made_is_no_error(class_path: list[Path], tmp_path: Path) -> None:
    nothing = tmp_path / "classes"
    assert archive.make(find_java(), class_path, nothing, ["-XX:+NoSuchOption"]) is None
    assert archive.find(find_java(), class_path) is None


def test_install_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jgo.conf").write_text("[repositories]\ncentral = http://127.0.0.1:1\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(tmp_path / "jgo.conf"))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    monkeypatch.setenv("UPON_CACHE", str(tmp_path / "cache"))
    done = subprocess.run(
        [sys.executable, "-m", "upon.embedded.broker.install"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "docker compose" in done.stderr
    assert "Traceback" not in done.stderr
