"""Kafka's jars: fetched once from Maven Central with jgo, kept where jgo keeps them, checked at each start.

Guarantees: a class path that is returned names whole jars only; with the jars there, neither the network nor jgo is
touched; two processes that fetch at the same time do it one after the other; a download cut short is fetched again
once, then named. What was fetched is written down in a manifest in the user's cache folder (`UPON_CACHE` moves it).

A mirror, a proxy or another cache folder are jgo's own settings: `[repositories]` in its configuration file,
HTTPS_PROXY, JGO_CONFIG_FILE and M2_REPO.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import xml.etree.ElementTree
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from upon.errors import KafkaInstallError
from upon.logs import get_logger

KAFKA = "4.1.0"
"""The Kafka that `upon up` runs. Scala 2.13 is the one it is built for."""
ENDPOINTS = (f"org.apache.kafka:kafka_2.13:{KAFKA}", "org.slf4j:slf4j-jdk14:1.7.36")
"""What is fetched, each with what it needs. Resolved apart: asked together, the versions of one bend the other's."""
ELSEWHERE = (
    "do without: use a Kafka that runs elsewhere with `upon up --kafka HOST:PORT`, or run everything in containers "
    "with `docker compose up`"
)
"""The remedy that every error about the embedded Kafka ends with."""

log = get_logger(__name__)


def class_path() -> list[Path]:
    """Return the jars of Kafka, fetched if they are not there or damaged.

    Raises:
        KafkaInstallError: they are not there and cannot be fetched, or a jar is damaged after a second download.
    """
    found = _from_manifest()
    if found:
        return found
    with _one_at_a_time():
        return _from_manifest() or _fetched()


def are_there() -> bool:
    """Return whether the jars are there and whole, so that a start needs no network."""
    return bool(_from_manifest())


def cache_folder() -> Path:
    """Return the folder of what is made once for all systems of this user: the manifest, and what `kept` keeps."""
    chosen = os.environ.get("UPON_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("upon")


def manifest_file() -> Path:
    """Return where the manifest is; systems with different jgo settings have different ones."""
    settings = [os.environ.get(name, "") for name in ("M2_REPO", "JGO_CONFIG_FILE")]
    key = hashlib.sha256(json.dumps([settings, ENDPOINTS]).encode()).hexdigest()[:12]
    return cache_folder() / f"kafka-{KAFKA}-{key}.json"


def fault(jar: Path, size: int | None = None) -> str | None:
    """Return what is wrong with a jar at first sight: missing, cut short, no zip archive; None if nothing is.

    Args:
        size: bytes it must have; None: any number but zero.
    """
    try:
        actual = jar.stat().st_size
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not actual or (size is not None and actual != size):
        return f"has {actual} bytes" + (f", not {size}" if size else "")
    return None if zipfile.is_zipfile(jar) else "is no zip archive, or is cut short"


def deep_fault(jar: Path) -> str | None:
    """Return what is wrong with a jar when all of it is read and each entry's checksum is compared."""
    if found := fault(jar):
        return found
    try:
        with zipfile.ZipFile(jar) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        return f"is damaged: {error}"
    except Exception as error:  # zlib.error and what else damaged bytes can cause in a decoder
        return f"is damaged: {error}"
    return f"is damaged at {bad}" if bad else None


def forget() -> None:
    """Have the jars checked in full, and fetched again where damaged, at the next start."""
    manifest_file().unlink(missing_ok=True)


def _from_manifest() -> list[Path]:
    """Return the jars of the manifest if all of them are as they were, else nothing."""
    try:
        jars = [(Path(path), int(size)) for path, size in json.loads(manifest_file().read_text())["jars"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    for path, size in jars:
        if found := fault(path, size):
            log.info(f"{path} {found}; it is fetched again", action="fetch", file=str(path))
            return []
    return [path for path, _ in jars]


def _fetched() -> list[Path]:
    log.info(f"fetching Apache Kafka {KAFKA}: 42 MB, only once", action="fetch", version=KAFKA)
    try:
        artifacts = _resolved()
        _download(artifacts)
        broken = _remove_broken(artifacts)
        if broken:
            log.info(f"fetching damaged jars again: {', '.join(broken)}", action="fetch", files=list(broken))
            _download(artifacts)
            broken = _remove_broken(artifacts)
    except Exception as error:
        raise _explained(error) from error
    if broken:
        name, found = next(iter(broken.items()))
        raise KafkaInstallError(
            f"the download of {name} is damaged twice: it {found}. A proxy or mirror that alters downloads may be the "
            f"cause: set `[repositories]` in jgo's configuration file to one that does not, or {ELSEWHERE}"
        )
    paths = list(dict.fromkeys(Path(artifact.resolve()) for artifact in artifacts))
    _write_manifest(paths)
    return paths


def _resolved() -> list[Any]:
    """Return jgo's artifacts of all endpoints, one for each jar; remove damaged POM files and try again once."""
    import jgo
    from jgo.config import GlobalSettings

    settings = GlobalSettings.load()
    try:
        found = [a for endpoint in ENDPOINTS for a in jgo.resolve(endpoint, settings.repositories)]
    except Exception:
        if not _remove_broken_poms(settings.repo_cache):
            raise
        found = [a for endpoint in ENDPOINTS for a in jgo.resolve(endpoint, settings.repositories)]
    unique = {artifact.cached_path: artifact for artifact in found}
    return list(unique.values())


def _download(artifacts: Iterable[Any]) -> None:
    """Download what is not there yet, eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(_downloaded, artifacts):
            pass


def _downloaded(artifact: Any) -> None:
    there = artifact.cached_path.exists()
    try:
        artifact.resolve()
    except BaseException:
        if not there:  # jgo leaves what had arrived, and would take it for whole the next time
            artifact.cached_path.unlink(missing_ok=True)
        raise


def _remove_broken(artifacts: Iterable[Any]) -> dict[str, str]:
    """Remove the jars that are damaged; return their names, and what was wrong with each."""
    broken = {}
    for artifact in artifacts:
        if found := deep_fault(artifact.cached_path):
            broken[artifact.filename] = found
            artifact.cached_path.unlink(missing_ok=True)
    return broken


def _remove_broken_poms(repository: Path) -> bool:
    """Remove the POM files that are cut short; return whether there were any."""
    removed = False
    for pom in repository.rglob("*.pom"):
        try:
            xml.etree.ElementTree.parse(pom)
        except (xml.etree.ElementTree.ParseError, ValueError):
            pom.unlink(missing_ok=True)
            removed = True
        except OSError:
            continue
    return removed


def _write_manifest(paths: Iterable[Path]) -> None:
    file = manifest_file()
    text = json.dumps({"kafka": KAFKA, "jars": [[str(path), path.stat().st_size] for path in paths]}, indent=1)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(file)
    except OSError as error:
        raise _explained(error) from error


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold a lock between processes; it is gone with its holder, however that ends."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "fetch.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _explained(error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _explained(error: BaseException) -> KafkaInstallError:
    """Return what went wrong while fetching, with what to do."""
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT):
            return KafkaInstallError(
                f"no room for Kafka's jars (42 MB): {reason}. Free some room, or set M2_REPO and UPON_CACHE to folders "
                f"on another disk, or {ELSEWHERE}"
            )
        if isinstance(reason, PermissionError | NotADirectoryError | FileExistsError):
            return KafkaInstallError(
                f"Kafka's jars cannot be stored: {reason}. Make the folder writable, or set M2_REPO and UPON_CACHE to "
                f"folders that are, or {ELSEWHERE}"
            )
        reason = reason.__cause__ or reason.__context__
    if isinstance(error, ImportError):
        return KafkaInstallError(f"{error}: run `pip install 'upon[embedded]'`, or {ELSEWHERE}")
    return KafkaInstallError(
        f"Kafka's jars cannot be fetched from Maven Central: {_short(error)}. Connect to the network and run it again; "
        "behind a proxy set HTTPS_PROXY; for a mirror set `central` under `[repositories]` in jgo's configuration "
        f"file; or {ELSEWHERE}"
    )


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"
