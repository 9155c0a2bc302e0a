"""The process of a dispatcher: it stands by until its site is to be had, serves it, and stands by again when another
takes over.

    stand by ──▶ claim ──▶ [managers turn to it] ──▶ what was done before is read ──▶ Dispatcher.run
       ▲                                                                                   │
       └───────────────────────────────── superseded ──────────────────────────────────────┘

The socket is open all the time, so that managers are connected when they are needed.
Not here: who may claim a site (`tenure`, `standby`), the work (`dispatcher`).
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from upon.config import Settings
from upon.dispatcher.dispatcher import STOP_PATIENCE, Dispatcher, Found, Seat
from upon.dispatcher.feeds import FromCommitted
from upon.dispatcher.hearing import turn_away, win_over
from upon.dispatcher.keys import curve_folder, dispatcher_keys
from upon.dispatcher.recovery import first_needed, past_of
from upon.dispatcher.router import Router
from upon.dispatcher.standby import Candidate
from upon.kafka.admin import ensure_topics
from upon.kafka.outbox import Outbox
from upon.kafka.reader import reading
from upon.part import Part

if TYPE_CHECKING:
    from upon.dispatcher.tenure import Term


async def main(part: Part, settings: Settings) -> None:
    """Run a dispatcher of `settings.site` until `part.stopping`.

    Raises:
        KafkaUnavailable: Kafka does not answer.
        ConfigError: the listening address or a key is wrong.
    """
    topics, site, partitions = settings.topics, settings.site, settings.partitions
    specs = [*topics.shared(partitions), *topics.of_site(site, partitions)]
    await ensure_topics(settings.need_kafka(), specs, settings.replication)
    async with _clients() as stack:
        seat = await _open(stack, settings)
        while not part.stopping.is_set():
            if (term := await _stand_by(part, seat)) is not None:
                await _serve(part, seat, term)


async def _open(stack: AsyncExitStack, settings: Settings) -> Seat:
    """Open what a dispatcher has, active or not."""
    kafka, topics, site = settings.need_kafka(), settings.topics, settings.site
    curve, wake = curve_folder(settings.places.endpoint(site)), asyncio.Event()
    router = Router(settings.dispatcher, dispatcher_keys(curve), curve, wake.set)
    stack.callback(router.close)
    client = f"upon-dispatcher-{site}"
    outbox = await stack.enter_async_context(
        Outbox(kafka, client, spec_of=settings.spec_of, replication=settings.replication)
    )
    candidate = Candidate(kafka, topics, site, outbox)
    watching = asyncio.create_task(_watch(candidate.follow(settings.spec_of), outbox.failed()))
    stack.callback(watching.cancel)
    return Seat(settings, router, wake, outbox, candidate, watching)


async def _watch(*endless: Coroutine[Any, Any, None]) -> None:
    """Run these until one ends with an exception, and raise that."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in endless:
                group.create_task(one)
    except* Exception as failures:
        raise failures.exceptions[0] from None


async def _stand_by(part: Part, seat: Seat) -> Term | None:
    """Wait until the site is to be had, or the part is told to stop (None)."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # for an active dispatcher
        loop.add_signal_handler(number, lambda: None)

    def waits() -> None:
        part.ready(dispatcher=seat.router.address, site=seat.settings.site, standby=True)

    standing = asyncio.create_task(seat.candidate.stand_by(waits))
    meanwhile = [asyncio.create_task(turn_away(seat.router, seat.wake)), asyncio.create_task(part.stopping.wait())]
    try:
        ended, _ = await asyncio.wait({standing, *meanwhile, seat.watching}, return_when=asyncio.FIRST_COMPLETED)
        for one in ended:
            one.result()
        return standing.result() if standing in ended else None
    finally:
        for task in (standing, *meanwhile):
            task.cancel()


async def _serve(part: Part, seat: Seat, term: Term) -> None:
    """Be the site's dispatcher, until told to stop or superseded."""
    settings, topics, site = seat.settings, seat.settings.topics, seat.settings.site
    kafka, start = settings.need_kafka(), FromCommitted()
    async with _clients() as stack:
        reader = await stack.enter_async_context(
            reading(
                kafka,
                f"upon-dispatcher-{site}",
                [topics.invocations(site)],
                group=f"{settings.prefix}.dispatcher.{site}",
                start=start,
                may_rewind=False,
                spec_of=settings.spec_of,
                replication=settings.replication,
            )
        )
        if start.first:
            await reader.commit(start.first)
        contested = start.begun and term.contested
        said = await win_over(seat.router, seat.wake, term) if contested else []
        needed = first_needed(((at, reader.ends[one]) for one, at in reader.positions.items()), time.time())
        past = await past_of(kafka, topics.results, site, needed)
        found = Found(reader, past, said, wait=start.begun and not contested)
        await Dispatcher(seat, term, found).run(part)


@asynccontextmanager
async def _clients() -> AsyncIterator[AsyncExitStack]:
    """Clients of Kafka, closed at the end; those that wait for a broker that is away are not waited for."""
    stack = AsyncExitStack()
    try:
        yield stack
    finally:
        with suppress(TimeoutError):
            await asyncio.wait_for(stack.aclose(), STOP_PATIENCE)
