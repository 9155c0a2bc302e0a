"""The part `sources`: runs every source that was applied, each in its thread, all with one publisher.

    HOME/sources/applied.json ──▶ Supervised source ─┐
    (or a sources file)           Supervised source ─┼─▶ Publisher ──▶ Kafka
                                  …                 ─┘

Guarantees: a source that fails is made anew after a pause that grows from 0.5 to 60 s, while the others go on; one that
is wrong as it is written is said to be, and keeps no other from running. What is applied while the part runs is taken
up within about a second; sources that it does not change go on undisturbed. A stop lasts less than 3 s: sources return,
what they published is given time to be safe, checkpoints are on the disk. Without any source the part is ready, and
idle. If the publisher comes to an unexpected end, so does the part, with its error: the supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from upon.config import Settings
from upon.errors import ConfigError
from upon.events import Event
from upon.logs import get_logger
from upon.part import Part
from upon.triggers import applied, report
from upon.triggers.applied import Wanted
from upon.triggers.report import Report, SourceReport
from upon.triggers.sources import Sources
from upon.triggers.sources_file import Fault, spec

READY_WITHIN = 20.0
"""Seconds after which the part is ready even if a source is not: it may be that instrument's fault."""
LOOK_EVERY = 1.0
"""Seconds between looks at what was applied, and between reports of counts."""

log = get_logger(__name__)


async def main(part: Part, settings: Settings) -> None:
    """Run the part `sources`."""
    home = settings.places.path
    seen = applied.mark(home)
    wanted = _wanted(settings)
    sources = Sources(settings)
    try:
        await _apply(sources, wanted)
        await _first(part, lambda: sources.wait_ready(READY_WITHIN))
        sources.check()
        if not part.stopping.is_set():
            _tell_ready(part, sources, wanted)
        while not part.stopping.is_set():
            _report(home, sources, wanted)
            await _pause(part)
            sources.check()
            if seen != (seen := applied.mark(home)):
                wanted = _wanted(settings)
                await _apply(sources, wanted)
                log.info("sources were applied", action="apply", file=wanted.file, sources=len(wanted.specs))
    finally:
        await _in_thread(sources.stop)
        _report(home, sources, wanted)


def _wanted(settings: Settings) -> Wanted:
    """Return what shall run; if that cannot be read as a whole, nothing with the reason."""
    try:
        wanted = applied.wanted(settings)
    except ConfigError as error:
        wanted = Wanted("", faults=(Fault("", error),))
    for fault in wanted.faults:
        log.error(f"the source cannot run: {fault.error}", action="fail", source=fault.name)
    return wanted


async def _apply(sources: Sources, wanted: Wanted) -> None:
    await _in_thread(lambda: sources.apply(wanted.specs))


def _tell_ready(part: Part, sources: Sources, wanted: Wanted) -> None:
    failing = {one.name: str(one.failure) for one in sources.running.values() if one.failure is not None}
    failing |= {fault.name or "sources": str(fault.error) for fault in wanted.faults}
    part.ready(sources=list(sources.running), failing=failing)


def _report(home: Path, sources: Sources, wanted: Wanted) -> None:
    """Write the report, if it says something new."""
    whole = [fault for fault in wanted.faults if not fault.name]
    wrong = [SourceReport(name=one.name, state="wrong", reason=str(one.error)) for one in wanted.faults if one.name]
    said = Report(
        pid=os.getpid(),
        file=wanted.file,
        problem=str(whole[0].error) if whole else "",
        sources=(*(one.report() for one in sources.running.values()), *wrong),
    )
    if said == report.read(home):
        return
    try:
        report.write(home, said)
    except OSError as error:
        log.debug("the report cannot be written", action="report", reason=error.strerror)


async def watch(
    part: Part, settings: Settings, folders: list[Path], on_event: Callable[[Event], None], **options: Any
) -> None:
    """Watch folders in the foreground, until the part is stopped: what `upon watch DIR …` does.

    Args:
        part: its life cycle.
        settings: home, Kafka's address, prefix.
        folders: each becomes a filesystem source, whose name comes from its path.
        on_event: called with each event once Kafka has it, in the event loop.
        options: of kind `filesystem`, such as ``recursive=False`` or ``settle="5s"``; None counts as not given.

    Raises:
        ConfigError: a folder is not there, or an option is wrong.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; `upon watch` needs one that is there")
    specs = [spec("filesystem", {"name": _name_of(folder), "path": folder, **given}) for folder in folders]
    loop = asyncio.get_running_loop()

    def in_loop(event: Event) -> None:
        loop.call_soon_threadsafe(on_event, event)

    sources = Sources(settings, in_loop)
    try:
        sources.apply(specs)
        await _first(part, lambda: sources.wait_ready(READY_WITHIN))
        sources.check()
        if not part.stopping.is_set():
            _tell_ready(part, sources, Wanted("", tuple(specs)))
        while not part.stopping.is_set():
            await _pause(part)
            sources.check()
    finally:
        await _in_thread(sources.stop)


async def _pause(part: Part) -> None:
    """Return when it is time to look again, or the part shall stop."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(part.stopping.wait(), LOOK_EVERY)


async def _first(part: Part, work: Callable[[], object]) -> None:
    """Run `work` in a thread until it is done or the part shall stop."""
    stopping = asyncio.ensure_future(part.stopping.wait())
    await asyncio.wait((_in_thread(work), stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


def _in_thread(work: Callable[[], object]) -> asyncio.Future[None]:
    """Run `work` in a daemon thread: unlike asyncio's own threads it does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failed: BaseException | None = None
        try:
            work()
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, failed)

    threading.Thread(target=run, daemon=True).start()
    return done


def _name_of(folder: Path) -> str:
    """Return a source's name for a watched folder: readable, and the same whenever the folder is watched."""
    absolute = folder.absolute()
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in absolute.name).strip("-") or "root"
    mark = hashlib.blake2b(os.fsencode(absolute), digest_size=4).hexdigest()
    return f"watch-{readable[:40]}-{mark}"
