"""`upon doctor`: is there everything that a system on this machine needs, and does it answer."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from upon.config import Settings

ROOM = 2 * 1024**3
"""Bytes of free disk below which the doctor warns: Kafka stops when it cannot write."""
LIBRARIES = (
    "aiohttp", "aiokafka", "cloudpickle", "faust-streaming", "globus-sdk", "jgo", "kafka-python", "msgspec", "pyzmq",
    "sqlalchemy", "watchdog",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` says what to do when it is not well."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def doctor(
    home: Annotated[Path | None, typer.Option(help="the folder of this system (default: UPON_HOME)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON array on stdout")] = False,
) -> None:
    """Look at Java, Kafka, ports, disk and versions: what is wrong and what to do. Exit code 1 if anything is.

    Example: upon doctor
    """
    import json

    from upon.config import Settings

    findings = list(examine(Settings.load(home)))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, in the order in which it is needed."""
    yield _python()
    yield _libraries()
    yield _java()
    yield _jars()
    yield from _home(settings)
    yield _store(settings)
    yield from _running(settings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _libraries() -> Finding:
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    text = f"missing: {', '.join(missing)}" if missing else ", ".join(found)
    return Finding("libraries", not missing, text, "pip install 'upon[embedded]'")


def _java() -> Finding:
    from upon.embedded.broker.java import find_java
    from upon.errors import JavaNotFound

    try:
        java = find_java()
        return Finding("Java", True, f"{java.release} at {java.path} ({java.origin})")
    except JavaNotFound as error:
        return Finding("Java", False, "none", str(error))


def _jars() -> Finding:
    from upon.embedded.broker import jars

    return Finding("Kafka jars", True, "there" if jars.are_there() else "not here yet; `upon up` fetches them, 42 MB")


def _home(settings: Settings) -> Iterator[Finding]:
    from upon.machine import PRIVATE

    place = settings.home
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    yield Finding(
        "disk", free >= ROOM, f"{free / 1024**3:.1f} GiB free for {place}", "free some, or choose another --home"
    )
    yield Finding(
        "home", os.access(existing, os.W_OK), str(place), f"{existing} is not writable: chown it or choose --home"
    )
    if settings.places.profile.exists() and (mode := stat.S_IMODE(place.stat().st_mode)) & ~PRIVATE:
        yield Finding("privacy", False, f"mode {mode:o}: others can read {place}", "`upon up` closes it; or chmod 700")


def _store(settings: Settings) -> Finding:
    """Look at the store of large arguments and results, and at its disk, which may be another one than the home's."""
    from upon.errors import StoreError
    from upon.store.files import MARK, FileStore

    folder, bound = settings.store_folder, settings.keep_payloads_bytes
    if not settings.store and not (folder / MARK).exists():
        return Finding("store", True, "none yet; the service makes it")
    try:
        size = sum(blob.size for blob in FileStore(folder).list())
        free = shutil.disk_usage(folder).free
    except (StoreError, OSError) as error:
        return Finding("store", False, str(error), "start the service, or correct UPON_STORE")
    well = free >= ROOM and (not bound or size <= bound) and os.access(folder, os.W_OK | os.X_OK)
    found = f"{size / 1024**3:.1f} GiB of large arguments and results in {folder}, {free / 1024**3:.1f} GiB free there"
    remedy = (
        f"free some room on its disk, keep less (UPON_KEEP_PAYLOADS, UPON_KEEP_PAYLOADS_BYTES, now {bound:,}), or set "
        "UPON_STORE to a folder on another disk; it must be writable"
    )
    return Finding("store", well, found, remedy)


def _running(settings: Settings) -> Iterator[Finding]:
    from upon.embedded import health
    from upon.embedded.ports import is_free, owner
    from upon.embedded.state import read_state

    state = read_state(settings.places)
    view = health.judge(settings.home, state, health.look(settings.places, state))
    if state is None:
        for name, address in (("service", settings.service), ("dispatcher", settings.dispatcher)):
            port = address.rpartition(":")[2]
            if port.isdigit() and "127.0.0.1" in address and not view["troubles"] and not is_free(int(port)):
                yield Finding(f"{name} port", True, f"{port} is taken by {owner(int(port))}; `upon up` takes another")
        for trouble in view["troubles"]:
            yield Finding("system", False, trouble, "run `upon down`")
        if not view["troubles"]:
            yield Finding("system", True, "not running; `upon up` starts it")
        return
    for name, part in view["parts"].items():
        well = part["state"] in ("up", "external")
        said = f"{part['state']}{': ' if part['reason'] else ''}{part['reason']}"
        yield Finding(name, well, said, f"see `upon logs {name}`; {settings.places.logs}/{name}.log")
    yield from _attention(settings, state.service)


def _attention(settings: Settings, service: str) -> Iterator[Finding]:
    """Tell of failed tasks and dead letters; they are the users' to look at, and no fault of the system."""
    from upon.cli.attention import attention
    from upon.errors import UponError
    from upon.sdk.client import Client

    try:
        with Client(home=settings.home, service=service) as client:
            found = attention(client.summary())
    except UponError as error:
        yield Finding("task store", False, str(error), f"see {settings.places.logs}/service.log")
        return
    for line in found:
        yield Finding("tasks", True, line)


def _print(findings: list[Finding]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for finding in findings:
        mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
        console.print(f"{mark} [bold]{finding.what}[/]: {finding.found}", soft_wrap=True)
        if not finding.ok:
            console.print(f"    {finding.remedy}", soft_wrap=True)
