"""Fetching Kafka's jars with the real jgo, from a Maven repository on this machine that can be made to misbehave."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from upon.embedded.broker import jars
from upon.errors import KafkaInstallError

REMEDIES = ("docker compose", "--kafka")


class Repository(ThreadingHTTPServer):
    """A Maven repository that serves what jgo has in its cache, but for jars, which are whole and small.

    Attributes:
        cut: files that it breaks off, and how often.
        served: what was asked for.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.cut: dict[str, int] = {}
        self.served: list[str] = []
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))


def small_jar(name: str) -> bytes:
    """Return a jar of some 40 KB that no other is like; the same each time."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as jar:
        jar.writestr(zipfile.ZipInfo(name), random.Random(name).randbytes(40_000))
    return made.getvalue()


class Handler(SimpleHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.served.append(name)
        file, cut = Path(self.translate_path(self.path)), self.server.cut.get(name, 0)
        if not file.is_file() or (file.suffix != ".jar" and not cut):
            super().do_GET()
            return
        data = small_jar(name) if file.suffix == ".jar" else file.read_bytes()
        if cut:
            self.server.cut[name] -= 1
            data = data[: len(data) // 2]
        self.send_response(200)
        self.end_headers()  # no Content-Length: the client cannot see that it is cut
        with contextlib.suppress(ConnectionError):  # a client without room hangs up
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The repository, and a jgo that knows no other and has nothing yet."""
    try:
        jars.class_path()
    except KafkaInstallError as error:
        missing(str(error))
    from jgo.config import GlobalSettings

    server = Repository(GlobalSettings.load().repo_cache)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_repository(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def use_repository(monkeypatch: pytest.MonkeyPatch, folder: Path, url: str) -> None:
    """Point jgo at one repository, and jgo's and our caches at empty folders."""
    (folder / "jgo.conf").write_text(f"[repositories]\ncentral = {url}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(folder / "jgo.conf"))
    monkeypatch.setenv("M2_REPO", str(folder / "m2"))
    monkeypatch.setenv("UPON_CACHE", str(folder / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_fetched_once(repository: Repository) -> None:
    found = jars.class_path()
    assert any(path.name == f"kafka_2.13-{jars.KAFKA}.jar" for path in found)
    assert all(jars.deep_fault(path) is None for path in found)
    asked = len(repository.served)
    assert jars.class_path() == found
    assert len(repository.served) == asked


def test_a_download_cut_short_is_fetched_again(repository: Repository) -> None:
    repository.cut = {f"kafka-clients-{jars.KAFKA}.jar": 1}
    found = jars.class_path()
    assert repository.served.count(f"kafka-clients-{jars.KAFKA}.jar") == 2
    assert all(jars.deep_fault(path) is None for path in found)


def test_a_download_cut_short_twice_is_named(repository: Repository) -> None:
    name = f"kafka-clients-{jars.KAFKA}.jar"
    repository.cut = {name: 2}
    with pytest.raises(KafkaInstallError) as caught:
        jars.class_path()
    assert all(text in str(caught.value) for text in (name, "jgo", *REMEDIES))
    assert jars.class_path()  # and nothing that is left behind spoils the next attempt


def test_a_description_cut_short_is_fetched_again(repository: Repository) -> None:
    name = f"kafka_2.13-{jars.KAFKA}.pom"
    repository.cut = {name: 1}
    assert jars.class_path()
    assert repository.served.count(name) == 2


def test_a_jar_that_breaks_later_is_fetched_again(repository: Repository) -> None:
    broken = jars.class_path()[3]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1000])
    assert broken in jars.class_path()
    assert broken.read_bytes() == whole
    assert repository.served.count(broken.name) == 2


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_repository(monkeypatch, tmp_path, "http://127.0.0.1:1")
    with pytest.raises(KafkaInstallError) as caught:
        jars.class_path()
    assert all(text in str(caught.value) for text in ("network", "HTTPS_PROXY", "mirror", *REMEDIES))


def test_a_repository_without_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Repository(tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_repository(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(KafkaInstallError, match="cannot be fetched"):
        jars.class_path()
    server.shutdown()
    server.server_close()


def test_no_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_repository(monkeypatch, tmp_path, "http://127.0.0.1:1")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(KafkaInstallError) as caught:
        jars.class_path()
    assert all(text in str(caught.value) for text in ("UPON_CACHE", *REMEDIES))


def test_no_room(repository: Repository, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2_REPO", str(small_disk / "m2"))
    full = shutil.disk_usage(small_disk).free - 100_000  # some of the jars
    with (small_disk / "full").open("wb") as file:
        file.write(bytes(full))
    with pytest.raises(KafkaInstallError) as caught:
        jars.class_path()
    assert all(text in str(caught.value) for text in ("no room", "M2_REPO", *REMEDIES))


def test_warm_and_offline_touches_neither_network_nor_jgo(tmp_path: Path) -> None:
    """With the user's own cache, as `upon up` finds it, and a network that does not exist."""
    try:
        jars.class_path()
    except KafkaInstallError as error:
        missing(str(error))
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    script = "import sys; from upon.embedded.broker import jars; print(len(jars.class_path()), 'jgo' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **nowhere}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(len(jars.class_path())), "False"]


def test_two_processes_fetch_one_after_the_other(repository: Repository) -> None:
    script = "from upon.embedded.broker import jars; print(len(jars.class_path()))"
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [process.communicate(timeout=120)[0].strip().splitlines()[-1] for process in both]
    assert counts[0] == counts[1]
    assert repository.served.count(f"kafka-clients-{jars.KAFKA}.jar") == 1
