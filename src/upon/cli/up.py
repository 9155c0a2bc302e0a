"""`upon up`: a whole system on this machine, in the foreground or detached."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upon.config import Settings

HomeOption = Annotated[Path | None, typer.Option("--home", help="the folder of this system (default: UPON_HOME)")]
DETACHED_READY = 120.0
"""Seconds that `upon up --detach` waits for the parts; Kafka's jars may have to be fetched first."""
STARTS = 5
"""How often a system is started that loses a port, which it has chosen, to another program before it listens there."""


def up(  # noqa: PLR0917  typer makes options of them
    home: HomeOption = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="return when all is up; `upon down` stops it")] = False,
    kafka: Annotated[
        str | None,
        typer.Option(
            envvar="UPON_KAFKA", help="use the broker at HOST:PORT instead of an embedded one", metavar="HOST:PORT"
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="worker processes (default: one per core)")] = None,
    sources: Annotated[
        Path | None, typer.Option(help="YAML file that names event sources to run; later starts remember it")
    ] = None,
    no_sources: Annotated[bool, typer.Option("--no-sources", help="forget the sources file of earlier starts")] = False,
    site: Annotated[str | None, typer.Option(help="name of the site that works here (default: local)")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="first part of every topic's name (default: upon); apart on a shared Kafka")
    ] = None,
    log: Annotated[Path | None, typer.Option(hidden=True, help="where to write once the home is ours")] = None,
) -> None:
    """Start everything on this machine: Kafka, service, streams, dispatcher, manager and its workers, sources.

    Ctrl-C stops it. All data is kept in the home folder and is there again at the next start, with the same
    addresses, token, site, prefix and sources. --kafka and --workers are to be given each time; a start that does
    otherwise than the one before says so.

    Example: upon up --workers 4 --detach
    """
    from upon.config import Settings
    from upon.errors import ConfigError
    from upon.topics import checked_site

    if sources and no_sources:
        raise ConfigError("--sources and --no-sources: give one of them")
    if sources and not sources.is_file():
        raise ConfigError(f"--sources {sources}: no such file")
    chosen = "" if no_sources else str(sources.resolve()) if sources else None
    settings = Settings.load(home, workers=workers, sources=chosen, site=site, prefix=prefix)
    checked_site(settings.site)
    settings.topics  # noqa: B018  a prefix that Kafka does not allow is an error here
    for line in [] if log else not_remembered(settings.places.read_profile(), kafka or "", settings.workers):
        typer.echo(line, err=True)
    if detach:
        given = {"--kafka": kafka, "--workers": workers, "--sources": chosen or None}
        given |= {"--site": site, "--prefix": prefix}
        _up_detached(settings, given, no_sources)
    else:
        _up_foreground(settings, kafka or "", log, chosen is not None)


def not_remembered(profile: Mapping[str, Any], kafka: str, workers: int) -> list[str]:
    """Return what this start does otherwise than the last one because `--kafka` or `--workers` is not given again.

    Args:
        profile: as the last start left it.
        kafka: address of the broker that this one uses, empty: its own.
        workers: processes of this one.
    """
    said = []
    if "broker" in profile and (before := str(profile["broker"])) != kafka:
        now = f"the broker at {kafka}" if kafka else "a Kafka of its own, with what that holds"
        last = f"the broker at {before}: `--kafka {before}`" if before else "a Kafka of its own: leave out --kafka"
        said.append(f"kafka: this start uses {now}; the last one used {last} for that one again")
    if "workers" in profile and (processes := str(profile["workers"])) != str(workers):
        said.append(f"workers: {workers}; the last start had {processes}: `--workers {processes}` for as many again")
    return said


def _up_foreground(settings: Settings, kafka: str, log: Path | None, sources_chosen: bool) -> None:
    import asyncio
    import signal
    import time

    from rich.console import Console
    from rich.text import Text

    from upon.embedded.notify import notify
    from upon.embedded.supervisor import Supervisor
    from upon.errors import AddressTaken
    from upon.triggers import applied

    console = Console(stderr=True, highlight=False)
    began = time.monotonic()

    def say(part: str, line: str) -> None:
        with contextlib.suppress(OSError):  # a full disk, a terminal that is gone: no reason to stop
            console.print(Text(f"{part:<11}", "bold"), Text(line), sep="", soft_wrap=True)

    told = asyncio.Event()

    async def run() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        for _ in range(STARTS - 1):
            try:
                return await run_once()
            except AddressTaken as taken:
                if told.is_set():
                    return None
                say("upon", f"another program took an address of ours; starting again at others. {taken}")
        return await run_once()

    lost: set[int] = set()

    async def run_once() -> None:
        supervisor = Supervisor(settings, kafka, say, locked)
        supervisor.lost = lost
        beside = [asyncio.create_task(announce(supervisor)), asyncio.create_task(stop(supervisor))]
        try:
            await supervisor.run()
        finally:
            for task in beside:
                task.cancel()

    async def stop(supervisor: Supervisor) -> None:
        await told.wait()
        supervisor.stopping.set()

    def locked() -> None:
        nonlocal log
        if log is not None:
            _write_to(log)
            log = None  # once: what a first start said is kept
        if sources_chosen:  # what `upon sources apply` said before no longer holds
            applied.forget(settings.places.path)

    async def announce(supervisor: Supervisor) -> None:
        await supervisor.all_ready.wait()
        notify("READY=1")
        failed = [name for name, part in supervisor.state.parts.items() if part.state == "failed"]
        without = f" without {', '.join(failed)} (see `upon status`)" if failed else ""
        took = time.monotonic() - began
        with contextlib.suppress(OSError):
            console.print(
                Text("ready", "bold green"),
                f"after {took:.1f} s{without}, home {settings.home}. Ctrl-C or `upon down` stops it.",
                soft_wrap=True,
            )

    say("upon", f"starting in {settings.home}")
    if file := settings.sources if sources_chosen else applied.file_of(settings):
        say("sources", f"from {file} (remembered; `--no-sources` leaves them out)")
    asyncio.run(run())
    say("upon", "stopped")


def _write_to(log: Path) -> None:
    """Send what this process prints to a file of its own, begun anew."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _up_detached(settings: Settings, given: dict[str, Any], no_sources: bool) -> None:
    import subprocess
    import sys
    import time

    from upon.embedded.state import read_state
    from upon.errors import Conflict, UponError
    from upon.triggers import applied

    place = settings.places
    if read_state(place):
        raise Conflict(f"a system runs in {place.path} already; `upon status` shows it, `upon down` stops it")
    place.make()
    output = place.logs / "up.log"
    argv = [sys.executable, "-m", "upon", "up", "--home", str(place.path), "--log", str(output)]
    for option, value in given.items():
        argv += [option, str(value)] if value is not None else []
    argv += ["--no-sources"] if no_sources else []
    reading, writing = os.pipe()  # what it says before the home is its own; another's log is not touched
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, start_new_session=True)
    os.close(writing)
    os.set_blocking(reading, False)
    deadline, said = time.monotonic() + DETACHED_READY, b""
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        with contextlib.suppress(BlockingIOError):
            said += os.read(reading, 65_536)
        state = read_state(place)
        if ended:
            mine = said.decode(errors="replace").strip()
            typer.echo(_without_start(mine) or output.read_text(errors="replace").strip(), err=True)
            raise typer.Exit(process.returncode or 1)
        if state is not None and state.ready and state.pid == process.pid:
            for name, part in state.parts.items():
                if part.state == "failed":
                    typer.echo(f"{name} does not run: {part.reason}; it is tried again now and then", err=True)
            if file := applied.file_of(settings):
                typer.echo(f"sources: {file} (remembered; `--no-sources` leaves them out)")
            typer.echo(f"up: service {state.service}, Kafka {state.kafka}, home {place.path}. `upon down` stops it.")
            return
        time.sleep(0.05)
    raise UponError(f"not all parts are up after {DETACHED_READY:.0f} s; see `upon status` and {output}")


def _without_start(text: str) -> str:
    """Return what a supervisor said before its log, but for the lines with which each begins."""
    return "\n".join(line for line in text.splitlines() if not line.startswith(("upon       ", "sources    ")))
